"""config/authserver.toml names every key there is, with its real default."""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel

from authserver.config import SHIPPED, Settings, TrustDomainSettings, load_settings


def _sections() -> dict[str, type[BaseModel]]:
    of_fields = {name: field.annotation for name, field in Settings.model_fields.items()}
    sections = {name: kind for name, kind in of_fields.items() if isinstance(kind, type)}
    return {**sections, "trust_domains": TrustDomainSettings}


SHIPPED_TEXT = (SHIPPED / "authserver.toml").read_text()


def test_the_shipped_configuration_is_complete() -> None:
    settings = load_settings(SHIPPED / "authserver.toml")
    assert settings.server.issuer == "http://127.0.0.1:8000"
    assert settings.trust_domains[0].jwks_file == SHIPPED / "../var/example.org/jwks.json"
    assert settings.database.url.get_secret_value() == f"sqlite:///{SHIPPED}/../var/authserver.db"
    assert settings.keys.encryption_key is None


def test_the_shipped_configuration_names_every_key() -> None:
    assert set(_sections()) == set(Settings.model_fields)
    missing = [
        f"{section}.{key}"
        for section, kind in _sections().items()
        for key in kind.model_fields
        if not re.search(rf"^(# )?({key} = |\[\[{section}\.{key}\]\])", _text_of(section), re.MULTILINE)
    ]
    assert not missing


def test_the_defaults_in_the_shipped_configuration_are_the_real_ones() -> None:
    # The blocks of further trust domains are examples; before them, what is commented out is a default.
    text = SHIPPED_TEXT.partition("\n# [[trust_domains]]\n")[0]
    document = tomllib.loads(re.sub(r"^# (\w+ = [^…\n]*)$", r"\1", text, flags=re.MULTILINE))
    document["trust_domains"] = document["trust_domains"][0]
    for section, kind in _sections().items():
        said = kind.model_validate(document[section])
        for key in re.findall(r"^# (\w+) = [^…\n]*$", text, re.MULTILINE):
            if key in kind.model_fields:
                default = kind.model_fields[key].default
                value = getattr(said, key)
                assert default == (SHIPPED / value if isinstance(value, Path) else value), f"{section}.{key}"


def _text_of(section: str) -> str:
    head = "[[trust_domains]]" if section == "trust_domains" else f"[{section}]"
    start = SHIPPED_TEXT.index(f"\n{head}\n")
    end = SHIPPED_TEXT.find("\n[", start + 1)
    return SHIPPED_TEXT[start : None if end < 0 else end]

"""A configuration that cannot be right stops the start, and the message names the key and what it takes."""

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from authserver.config import (
    SHIPPED,
    ConfigurationError,
    Settings,
    load_settings,
)

GOOD_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")

COMPLETE = """
[server]
issuer = "https://auth.example.com"

[database]
url = "sqlite:///records/authserver.db"

[[trust_domains]]
name = "example.org"
kind = "spiffe"
jwks_file = "keys/jwks.json"
"""

Load = Callable[[str], Settings]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "authserver.toml"
    path.write_text(COMPLETE)
    return path


@pytest.fixture
def load(file: Path) -> Load:
    def with_text(text: str) -> Settings:
        file.write_text(text)
        return load_settings(file)

    return with_text


def _refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(path)
    return str(refusal.value)


def _with(section: str, line: str) -> str:
    text = COMPLETE if f"[{section}]" in COMPLETE else f"{COMPLETE}\n[{section}]\n"
    kept = re.sub(rf"^{line.split()[0]} = .*\n", "", text, flags=re.MULTILINE)
    return kept.replace(f"[{section}]\n", f"[{section}]\n{line}\n")


def test_issuer_database_and_one_trust_domain_are_a_complete_configuration(file: Path) -> None:
    settings = load_settings(file)
    assert settings.server.issuer == "https://auth.example.com"
    assert settings.dpop.require_nonce
    assert settings.catalogue.actions_file == SHIPPED / "actions.toml"


def test_relative_paths_are_relative_to_the_file(file: Path, tmp_path: Path) -> None:
    settings = load_settings(file)
    assert settings.database.url.get_secret_value() == f"sqlite:///{tmp_path}/records/authserver.db"
    assert settings.trust_domains[0].jwks_file == tmp_path / "keys/jwks.json"
    assert settings.keys.encryption_key_file == tmp_path / "encryption.key"


def test_a_relative_path_of_the_command_line_stays_right_after_a_change_of_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path(file.name))
    assert settings.keys.encryption_key_file == tmp_path / "encryption.key"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/authserver/records.db",
        "postgresql+psycopg://auth:p%40ss@db.example.com/authserver?sslmode=verify-full",
        "postgresql://auth@/authserver?host=/run/postgresql",
    ],
)
def test_other_database_urls_stay_as_they_are(load: Load, url: str) -> None:
    assert load(_with("database", f'url = "{url}"')).database.url.get_secret_value() == url


def test_authserver_config_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_CONFIG", str(file))
    assert load_settings().server.issuer == "https://auth.example.com"


def test_without_authserver_config_the_shipped_file_counts() -> None:
    assert load_settings().model_dump() == load_settings(SHIPPED / "authserver.toml").model_dump()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.toml"
    assert _refused(missing).startswith(f"{missing}: there is no such configuration file")
    assert "no such configuration file" in _refused(tmp_path)


def test_broken_toml_is_refused_with_its_line(load: Load, file: Path) -> None:
    file.write_text("[server\nissuer = 1")
    assert re.match(rf"{re.escape(str(file))}: .*line 1", _refused(file))


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert _refused(file).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("section", "line", "words"),
    [
        ("server", "port = 0", "server.port: takes 1 or more"),
        ("server", "port = 65536", "server.port: takes 65535 or less"),
        ("server", 'port = "http"', "server.port: takes a whole number"),
        ("server", "port = 80.5", "server.port: takes a whole number"),
        ("server", "host = 1", "server.host: takes a text"),
        ("server", "debug = true", "server.debug: is not a key of the configuration"),
        ("srever", "port = 1", "srever: is not a key of the configuration"),
        ("log", 'level = "loud"', "log.level: takes 'debug', 'info', 'warning' or 'error'"),
        ("dpop", 'require_nonce = "perhaps"', "dpop.require_nonce: takes true or false"),
        ("delegations", "longest_days = 0", "delegations.longest_days: takes 1 or more"),
        ("database", 'url = "records.db"', "database.url: takes a database URL"),
        ("database", 'url = "mysql://host/name"', "database.url: takes a URL that begins with sqlite:///"),
        ("database", 'url = "sqlite://"', "database.url: takes a database in a file"),
        ("database", 'url = "sqlite:///:memory:"', "database.url: takes a database in a file"),
    ],
)
def test_a_wrong_key_stops_the_start_with_its_name_and_what_it_takes(
    file: Path, section: str, line: str, words: str
) -> None:
    file.write_text(_with(section, line))
    assert _refused(file).startswith(f"{file}: {words}")


def test_every_wrong_key_is_named_at_once(file: Path) -> None:
    file.write_text(
        '[server]\nport = 0\n[database]\n[log]\nformat = "xml"\n[[trust_domains]]\nkind = "spiffe"'
    )
    assert _refused(file).splitlines() == [
        f"{file}: server.issuer: is required",
        f"{file}: server.port: takes 1 or more",
        f"{file}: database.url: is required",
        f"{file}: log.format: takes 'json' or 'console'",
        f"{file}: trust_domains.0.name: is required",
    ]


@pytest.mark.parametrize(
    "issuer",
    [
        "http://auth.example.com",
        "http://10.0.0.1:8000",
        "http://localhost.example.com",
        "http://0.0.0.0:8000",
        "ftp://127.0.0.1",
    ],
)
def test_A125_an_http_issuer_off_loopback_is_refused(file: Path, issuer: str) -> None:
    file.write_text(_with("server", f'issuer = "{issuer}"'))
    assert f"{file}: server.issuer: takes an https URL; http is for loopback addresses only" in _refused(file)


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost"])
def test_an_http_issuer_on_loopback_is_taken(load: Load, issuer: str) -> None:
    assert load(_with("server", f'issuer = "{issuer}"')).server.issuer == issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "https://auth.example.com/",
        "https://auth.example.com?x=1",
        "https://auth.example.com#x",
        "https://user@auth.example.com",
        "https://Auth.example.com",
        "HTTPS://auth.example.com",
        "https://auth.example.com:0",
        "https://auth.example.com:99999",
        "https://auth.example.com\\n.evil.example",
        "https://auth example.com",
        "https://bücher.example",
        "https://",
        "auth.example.com",
        "",
    ],
)
def test_an_issuer_has_one_spelling(file: Path, issuer: str) -> None:
    file.write_text(_with("server", f'issuer = "{issuer}"'))
    assert f"{file}: server.issuer: takes" in _refused(file)


def test_the_environment_is_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTHSERVER_SERVER__ISSUER", "https://other.example.com")
    monkeypatch.setenv("AUTHSERVER_SERVER__PORT", "9000")
    monkeypatch.setenv("AUTHSERVER_DATABASE__URL", "sqlite:///other.db")
    monkeypatch.setenv("AUTHSERVER_DPOP__REQUIRE_NONCE", "false")
    settings = load_settings(file)
    assert settings.server.issuer == "https://other.example.com"
    assert settings.server.port == 9000
    assert settings.database.url.get_secret_value() == f"sqlite:///{tmp_path}/other.db"
    assert not settings.dpop.require_nonce


def test_the_environment_can_say_what_the_file_lacks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("")
    monkeypatch.setenv("AUTHSERVER_SERVER__ISSUER", "https://auth.example.com")
    monkeypatch.setenv("AUTHSERVER_DATABASE__URL", "sqlite:///records.db")
    domain = '[{"name": "example.org", "kind": "spiffe", "jwks_file": "jwks.json"}]'
    monkeypatch.setenv("AUTHSERVER_TRUST_DOMAINS", domain)
    assert load_settings(file).trust_domains[0].name == "example.org"


def test_a_wrong_variable_is_named_in_place_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_SERVER__PORT", "0")
    assert _refused(file) == "AUTHSERVER_SERVER__PORT: server.port: takes 1 or more"


@pytest.mark.parametrize("name", ["AUTHSERVER_SERVER__ISSUR", "AUTHSERVER_SRV__ISSUER", "AUTHSERVER_X__Y"])
def test_an_unknown_variable_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    message = _refused(file)
    assert name in message
    assert message.endswith("is not a key of the configuration")


def test_a_variable_that_takes_json_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_TRUST_DOMAINS", "example.org")
    assert '"trust_domains"' in _refused(file)
    assert _refused(file).endswith("takes JSON")


def test_variables_of_other_makers_are_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Kubernetes sets these for a service of the name `authserver`.
    monkeypatch.setenv("AUTHSERVER_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("AUTHSERVER_SERVICE_HOST", "10.0.0.1")
    assert load_settings(file).server.port == 8000


def test_a_dotenv_file_is_not_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AUTHSERVER_SERVER__PORT=9000\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(file).server.port == 8000


def test_secrets_do_not_show(load: Load, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_KEYS__ENCRYPTION_KEY", GOOD_KEY)
    settings = load(_with("database", 'url = "postgresql+psycopg://auth:hunter2@db/authserver"'))
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert GOOD_KEY not in shown
    monkeypatch.setenv("AUTHSERVER_DATABASE__URL", "oracle://auth:hunter2@db/authserver")
    monkeypatch.setenv("AUTHSERVER_KEYS__ENCRYPTION_KEY", "hunter2")
    assert "hunter2" not in _refused(file)


def test_settings_cannot_be_changed(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(file).server.port = 1


def test_A125_debug_mode_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert _refused(file).startswith("FLASK_DEBUG: ")
    monkeypatch.setenv("FLASK_DEBUG", "0")
    load_settings(file)


# Trust domains


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ({"jwks_file": None}, "takes exactly one of jwks_file, jwks_url, discovery and bundle_endpoint_url"),
        ({"jwks_url": "https://example.org/jwks"}, "takes exactly one of jwks_file"),
        ({"discovery": True}, "takes exactly one of jwks_file"),
        ({"issuer": "https://example.org"}, "a spiffe trust domain takes no issuer"),
        ({"kind": "oidc"}, "issuer: a trust domain of kind oidc takes the iss of its assertions"),
        ({"kind": "kubernetes", "issuer": ""}, "issuer: a trust domain of kind kubernetes"),
        ({"kind": "oidc", "issuer": "spiffe://example.com"}, "issuer: a trust domain of kind oidc"),
        (
            {"kind": "oidc", "issuer": "x", "jwks_file": None, "bundle_endpoint_url": "https://example.org"},
            "bundle_endpoint_url is for spiffe",
        ),
        ({"kind": "oidc", "issuer": "x", "jwks_file": None, "discovery": True}, "takes a"),
        ({"jwks_file": None, "jwks_url": "http://example.org/jwks"}, "jwks_url: takes an https URL"),
        ({"jwks_file": None, "jwks_url": "file:///etc/passwd"}, "jwks_url: takes a URL with a host"),
        (
            {"jwks_file": None, "jwks_url": "https://a:b@example.org/jwks"},
            "jwks_url: takes a URL with a host",
        ),
        ({"jwks_file": None, "jwks_url": "http://127.0.0.1/jwks"}, "an http URL takes allow_private_network"),
        ({"algorithms": []}, "algorithms: takes one or more of ES256"),
        ({"algorithms": ["none"]}, "algorithms: takes one or more of ES256"),
        ({"algorithms": ["HS256"]}, "algorithms: takes one or more of ES256"),
        ({"algorithms": ["EdDSA"]}, "algorithms: takes one or more of ES256"),
        ({"algorithms": "ES256"}, "algorithms: takes an array"),
        ({"name": "Example.org"}, "name: takes 1 to 255 of a-z"),
        ({"name": "example.org/x"}, "name: takes 1 to 255 of a-z"),
        ({"name": ""}, "name: takes 1 to 255 of a-z"),
        ({"refresh_after": 301}, "refresh_after: takes 300 or less"),
        ({"max_lifetime": 0}, "max_lifetime: takes 1 or more"),
        ({"jwks_uri": "https://example.org"}, "jwks_uri: is not a key"),
    ],
)
def test_a_trust_domain_says_what_it_takes(file: Path, domain: dict[str, object], words: str) -> None:
    whole = {"name": "example.org", "kind": "spiffe", "jwks_file": "jwks.json", **domain}
    _write_domains(file, whole)
    place, _, message = _refused(file).partition(": trust_domains.0")
    assert place == str(file)
    assert message.lstrip(".: ").startswith(words)


def test_http_keys_on_loopback_take_a_word_of_their_own(file: Path) -> None:
    url = "http://127.0.0.1:9000/jwks"
    _write_domains(
        file, {"name": "example.org", "kind": "spiffe", "jwks_url": url, "allow_private_network": True}
    )
    assert load_settings(file).trust_domains[0].jwks_url == url


@pytest.mark.parametrize(
    "domains",
    [
        [],
        [("example.org", "https://a.example"), ("example.org", "https://b.example")],
        [("a", "https://same.example"), ("b", "https://same.example")],
        [("a", "https://auth.example.com")],
    ],
)
def test_trust_domains_are_one_or_more_and_differ(file: Path, domains: list[tuple[str, str]]) -> None:
    _write_domains(
        file, *({"name": n, "kind": "oidc", "issuer": i, "jwks_file": "jwks.json"} for n, i in domains)
    )
    assert _refused(file).startswith(f"{file}: trust_domains: ")


def _write_domains(file: Path, *domains: Mapping[str, object]) -> None:
    text = COMPLETE.partition("[[trust_domains]]")[0]
    for domain in domains:
        lines = (f"{name} = {_toml(value)}" for name, value in domain.items() if value is not None)
        text += "\n[[trust_domains]]\n" + "\n".join(lines)
    file.write_text("trust_domains = []\n" + text if not domains else text)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)

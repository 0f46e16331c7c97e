"""The key that private keys rest under: made once, for its owner alone, and refused where it is weak."""

import base64
import os
import re
import stat
from pathlib import Path

import pytest

from authserver.config import (
    ConfigurationError,
    KeysSettings,
    create_encryption_key,
    load_settings,
    read_encryption_key,
)

GOOD_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")

COMPLETE = """
[server]
issuer = "https://auth.example.com"
[database]
url = "sqlite:///authserver.db"
[[trust_domains]]
name = "example.org"
kind = "spiffe"
jwks_file = "jwks.json"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "authserver.toml"
    path.write_text(COMPLETE)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(path)
    return str(refusal.value)


@pytest.fixture
def keys(tmp_path: Path) -> KeysSettings:
    return KeysSettings(encryption_key_file=tmp_path / "var" / "encryption.key")


def test_the_key_file_is_made_once_for_its_owner_alone(keys: KeysSettings) -> None:
    assert read_encryption_key(keys) is None
    key = create_encryption_key(keys)
    assert len(key) == 32
    assert stat.S_IMODE(keys.encryption_key_file.stat().st_mode) == 0o600
    assert read_encryption_key(keys) == key
    assert list(keys.encryption_key_file.parent.iterdir()) == [keys.encryption_key_file]


def test_the_first_process_to_make_the_key_file_decides(keys: KeysSettings) -> None:
    first = create_encryption_key(keys)
    assert create_encryption_key(keys) == first


def test_a_key_of_the_environment_is_taken(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_KEYS__ENCRYPTION_KEY", GOOD_KEY)
    assert read_encryption_key(load_settings(file).keys) == bytes(range(32))


WEAK_KEYS = [
    "",
    "secret",
    "change-me",
    GOOD_KEY[:-2],  # 31 bytes
    GOOD_KEY + "AA",  # 33 bytes and more
    GOOD_KEY.replace("A", "+", 1),  # base64, not base64url
    "A" * 43,  # 32 zeros
    base64.urlsafe_b64encode(b"password" * 4).decode(),
]


@pytest.mark.parametrize("text", WEAK_KEYS)
def test_A125_a_weak_key_stops_the_start(file: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AUTHSERVER_KEYS__ENCRYPTION_KEY", text)
    assert _refused(file).startswith("AUTHSERVER_KEYS__ENCRYPTION_KEY: keys.encryption_key: takes ")


@pytest.mark.parametrize("text", WEAK_KEYS)
def test_A125_a_weak_key_file_is_refused(keys: KeysSettings, text: str) -> None:
    create_encryption_key(keys)
    keys.encryption_key_file.write_text(f"{text}\n")
    with pytest.raises(ConfigurationError, match=r"keys\.encryption_key_file: takes "):
        read_encryption_key(keys)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_A125_a_key_file_that_others_can_read_is_refused(keys: KeysSettings, mode: int) -> None:
    create_encryption_key(keys)
    keys.encryption_key_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="others can read it; takes mode 0600"):
        read_encryption_key(keys)


def test_A125_a_configuration_with_a_key_in_it_is_for_its_owner_alone(file: Path) -> None:
    file.write_text(f'{COMPLETE}[keys]\nencryption_key = "{GOOD_KEY}"')
    file.chmod(0o644)
    assert _refused(file).startswith(f"{file}: holds a key and others can read it")
    file.chmod(0o600)
    assert read_encryption_key(load_settings(file).keys) == bytes(range(32))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_A125_a_key_file_of_another_user_is_refused(keys: KeysSettings) -> None:
    create_encryption_key(keys)
    os.chown(keys.encryption_key_file, 65534, 65534)
    with pytest.raises(ConfigurationError, match="takes the user who runs the server as its owner"):
        read_encryption_key(keys)


def test_a_key_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keys = KeysSettings(encryption_key_file=tmp_path / "file" / "encryption.key")
    with pytest.raises(ConfigurationError, match=re.escape(str(keys.encryption_key_file))):
        create_encryption_key(keys)

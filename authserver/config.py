"""Typed settings: a TOML file, environment variables over it, and a clear word where one of them is wrong."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SHIPPED = Path(__file__).resolve().parent.parent / "config"

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names each key and what it takes."""


def is_loopback(host: str) -> bool:
    """Whether a URL's host can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _https_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port  # reading it checks it
    except ValueError as error:
        raise ValueError("takes a URL") from error
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("takes an https URL; http is for loopback addresses only")
    if not host or parts.username is not None or "?" in value or "#" in value or port == 0:
        raise ValueError("takes a URL with a host and without user name, query or fragment")
    if value.endswith("/"):
        raise ValueError("takes a URL without a slash at its end")
    return value


def _trust_domain_name(value: str) -> str:
    # SPIFFE-ID §2.1; the other kinds use it as a label and fit the same shape.
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", value):
        raise ValueError("takes 1 to 255 of a-z, 0-9, dot, dash and underscore")
    return value


Section = TypeVar("Section", bound=BaseModel)
HttpsUrl = Annotated[str, AfterValidator(_https_url)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """Where the server is found by others, and how it listens."""

    issuer: HttpsUrl
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=256)


class DatabaseSettings(_Section):
    """Where the records are kept."""

    url: SecretStr
    pool_size: int = Field(default=4, ge=1, le=1000)
    statement_timeout: int = Field(default=5_000, ge=100, le=600_000)


class KeysSettings(_Section):
    """How private keys rest, and how they are replaced."""

    encryption_key: SecretStr | None = None
    encryption_key_file: Path = Path("encryption.key")
    publish_ahead: int = Field(default=600, ge=0, le=86_400)


class CatalogueSettings(_Section):
    """The words that details are made of."""

    actions_file: Path = SHIPPED / "actions.toml"
    datatypes_file: Path = SHIPPED / "datatypes.toml"
    country_groups_file: Path = SHIPPED / "country-groups.toml"


class DelegationsSettings(_Section):
    """Bounds of what a user may delegate."""

    longest_days: int = Field(default=90, ge=1, le=3660)


class DpopSettings(_Section):
    """Proof of possession (RFC 9449) at the token endpoint."""

    require_nonce: bool = True
    nonce_lifetime: int = Field(default=300, ge=10, le=3600)


class LogSettings(_Section):
    """What is written while the server runs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class TrustDomainSettings(_Section):
    """One source of workload identities (contract §3)."""

    name: Annotated[str, AfterValidator(_trust_domain_name)]
    kind: Literal["spiffe", "kubernetes", "oidc"]
    issuer: str | None = None
    jwks_file: Path | None = None
    jwks_url: str | None = None
    discovery: bool = False
    bundle_endpoint_url: str | None = None
    algorithms: tuple[str, ...] = ("ES256", "RS256")
    max_lifetime: int = Field(default=3600, ge=1, le=31_536_000)
    refuse_repeated_jti: bool = False
    allow_private_network: bool = False
    ca_file: Path | None = None
    refresh_after: int = Field(default=300, ge=1, le=300)
    stale_for: int = Field(default=3600, ge=0, le=604_800)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        sources = [self.jwks_file, self.jwks_url, self.discovery or None, self.bundle_endpoint_url]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("takes exactly one of jwks_file, jwks_url, discovery and bundle_endpoint_url")
        if self.kind != "spiffe" and not self.issuer:
            raise ValueError(f"issuer: a {self.kind} trust domain takes the iss of its assertions")
        if self.kind == "spiffe" and (self.issuer or self.discovery):
            raise ValueError("a spiffe trust domain takes no issuer and no discovery")
        if self.kind != "spiffe" and self.bundle_endpoint_url:
            raise ValueError("bundle_endpoint_url is for spiffe trust domains")
        unknown = set(self.algorithms) - set(ALGORITHMS)
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms: takes one or more of {', '.join(ALGORITHMS)}")
        return self


class Settings(BaseSettings):
    """Everything that can be configured; `config/authserver.toml` says what each key is for."""

    model_config = SettingsConfigDict(
        env_prefix="AUTHSERVER_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerSettings
    database: DatabaseSettings
    keys: KeysSettings = KeysSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    delegations: DelegationsSettings = DelegationsSettings()
    dpop: DpopSettings = DpopSettings()
    log: LogSettings = LogSettings()
    trust_domains: tuple[TrustDomainSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [domain.name for domain in self.trust_domains]
        issuers = [domain.issuer for domain in self.trust_domains if domain.issuer]
        if len(set(names)) != len(names):
            raise ValueError("trust_domains: two have the same name")
        if len(set(issuers)) != len(issuers) or self.server.issuer in issuers:
            raise ValueError("trust_domains: two have the same issuer, or one has this server's")
        return self


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration file and the environment.

    `path` defaults to `AUTHSERVER_CONFIG`, then `config/authserver.toml`. Relative paths in the file are relative to it.
    Raises `ConfigurationError` with one line for each key that is wrong.
    """
    path = (path or Path(os.environ.get("AUTHSERVER_CONFIG", SHIPPED / "authserver.toml"))).absolute()
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such configuration file (AUTHSERVER_CONFIG names it)")

    class _FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    try:
        loaded = _FromFile()  # type: ignore[call-arg]  # its values come from the file and the environment
    except ValidationError as error:
        raise ConfigurationError(_in_words(path, error)) from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return _with_absolute_paths(loaded, path.parent)


def _in_words(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        message = problem["msg"].removeprefix("Value error, ")
        kind = problem["type"]
        if kind == "missing":
            message = "is required"
        elif kind == "extra_forbidden":
            message = "is not a key of the configuration"
        lines.append(f"{path}: {key}: {message}")
    return "\n".join(lines)


def _with_absolute_paths(settings: Settings, base: Path) -> Settings:
    url = settings.database.url.get_secret_value()
    if match := re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:?].*)", url):
        url = f"{match[1]}{base / match[2]}"
    changes: dict[str, Any] = {
        "keys": _absolute(settings.keys, base),
        "catalogue": _absolute(settings.catalogue, base),
        "trust_domains": tuple(_absolute(domain, base) for domain in settings.trust_domains),
        "database": settings.database.model_copy(update={"url": SecretStr(url)}),
    }
    return settings.model_copy(update=changes)


def _absolute(section: Section, base: Path) -> Section:
    paths: Mapping[str, Path] = {
        name: base / value for name, value in section.__dict__.items() if isinstance(value, Path)
    }
    return section.model_copy(update=dict(paths))

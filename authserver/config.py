"""Typed settings: a TOML file, environment variables over it, and a clear word where one of them is wrong."""

import base64
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from authserver.values import is_loopback, parse_name

# The server is run from a checkout, by an editable install: config/ and migrations/ are beside the package.
# A wheel brings both into its environment's share/authserver instead (pyproject.toml, data-files).
_CHECKOUT = Path(__file__).resolve().parent.parent
_SHARE = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path(sys.prefix) / "share" / "authserver"
SHIPPED = _SHARE / "config"
MIGRATIONS = _SHARE / "migrations"

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names each key and what it takes."""


def _web_url(value: str) -> str:
    # urlsplit drops tabs and line ends silently, so they are looked for first.
    if not re.fullmatch(r"[!-~]+", value) or re.search(r'["<>\\^`{|}]', value):
        raise ValueError("takes a URL in ASCII, without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port  # reading it checks it
    except ValueError as error:
        raise ValueError("takes a URL") from error
    host = parts.hostname or ""
    if not host or parts.username is not None or "#" in value or port == 0:
        raise ValueError("takes a URL with a host and without user name or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("takes an https URL; http is for loopback addresses only")
    return value


def _issuer(value: str) -> str:
    # RFC 8414 §2: no query, no fragment. It is compared letter by letter, so it has one spelling only.
    parts = urlsplit(_web_url(value))
    if "?" in value or value.endswith("/"):
        raise ValueError("takes a URL without query and without a slash at its end")
    if not value.startswith(f"{parts.scheme}://{parts.netloc.lower()}"):
        raise ValueError("takes a URL with scheme and host in lower case")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except (ArgumentError, ValueError) as error:
        # Not the library's words, which show the URL and so the password in it.
        raise ValueError("takes a database URL as SQLAlchemy writes it") from error
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"):
        raise ValueError("takes a URL that begins with sqlite:/// or postgresql+psycopg://")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("takes a database in a file: one in memory is gone at the end and not shared")
    return value


def _key_from(text: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}=?", text):
        raise ValueError("takes base64url of exactly 32 random bytes (43 characters)")
    key = base64.urlsafe_b64decode(text[:43] + "=")
    # Of 32 random bytes, 28 or more differ as a rule; fewer than 16 is a key that somebody typed.
    if len(set(key)) < 16:
        raise ValueError("takes random bytes, and these are not")
    return key


def _encryption_key(value: SecretStr) -> SecretStr:
    _key_from(value.get_secret_value())
    return value


def _trust_domain_name(value: str) -> str:
    # SPIFFE-ID §2.1; the other kinds use it as a label and fit the same shape.
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", value):
        raise ValueError("takes 1 to 255 of a-z, 0-9, dot, dash and underscore")
    return value


def _page_name(value: str) -> str:
    return parse_name(value)


Section = TypeVar("Section", bound=BaseModel)
WebUrl = Annotated[str, AfterValidator(_web_url)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """Where the server is found by others, and how it listens."""

    issuer: Annotated[str, AfterValidator(_issuer)]
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=256)


class DatabaseSettings(_Section):
    """Where the records are kept."""

    url: Annotated[SecretStr, AfterValidator(_database_url)]
    pool_size: int = Field(default=8, ge=1, le=1000)
    statement_timeout: int = Field(default=5_000, ge=100, le=600_000)
    prepared_statements: bool = True


class KeysSettings(_Section):
    """How private keys rest, and how they are replaced."""

    encryption_key: Annotated[SecretStr, AfterValidator(_encryption_key)] | None = None
    encryption_key_file: Path = Path("encryption.key")
    other_encryption_key: Annotated[SecretStr, AfterValidator(_encryption_key)] | None = None
    other_encryption_key_file: Path | None = None
    publish_ahead: int = Field(default=600, ge=0, le=86_400)


class CatalogueSettings(_Section):
    """The words that details are made of."""

    actions_file: Path = SHIPPED / "actions.toml"
    datatypes_file: Path = SHIPPED / "datatypes.toml"
    country_groups_file: Path = SHIPPED / "country-groups.toml"


class PoliciesSettings(_Section):
    """What the organisation allows, whatever its users delegate."""

    directory: Path = SHIPPED / "policies"
    two_people: bool = False


class DelegationsSettings(_Section):
    """Bounds of what a user may delegate."""

    longest_days: int = Field(default=90, ge=1, le=3660)


class AuthorizationSettings(_Section):
    """How long an agent's request to a person may take. Times are in seconds."""

    request_lifetime: int = Field(default=300, ge=10, le=599)
    code_lifetime: int = Field(default=60, ge=5, le=60)
    device_lifetime: int = Field(default=600, ge=60, le=1_800)
    device_interval: int = Field(default=5, ge=1, le=60)
    user_code_tries: int = Field(default=5, ge=1, le=100)
    open_for_agent: int = Field(default=1_000, ge=1, le=100_000)


class LedgerSettings(_Section):
    """What the ledger holds for agents."""

    open_reservations: int = Field(default=25_000, ge=1, le=10_000_000)


class DpopSettings(_Section):
    """Proof of possession (RFC 9449) at the token endpoint."""

    require_nonce: bool = True
    nonce_lifetime: int = Field(default=300, ge=10, le=3600)


class ApprovalsSettings(_Section):
    """How long an agent waits for a person, and how often it may ask."""

    lifetime: int = Field(default=1800, ge=60, le=86_400)
    interval: int = Field(default=5, ge=1, le=60)
    open_for_agent: int = Field(default=5, ge=1, le=1000)
    open_for_user: int = Field(default=20, ge=1, le=10_000)
    per_minute: int = Field(default=10, ge=1, le=1000)
    refusals_before_pause: int = Field(default=3, ge=1, le=100)
    refusals_within: int = Field(default=3600, ge=60, le=604_800)


class NotificationsSettings(_Section):
    """How people are told that an agent waits for them; each way is used where it is configured."""

    webhook_url: WebUrl | None = None
    webhook_secret: SecretStr | None = None
    push_contact: str | None = Field(default=None, pattern=r"^[!-?A-~]+@[!-?A-~]+$")
    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    mail_from: str | None = Field(default=None, pattern=r"^[!-?A-~]+@[!-?A-~]+$")
    allow_private_network: bool = False

    @model_validator(mode="after")
    def _what_each_way_takes(self) -> Self:
        secret = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        if self.webhook_url and len(secret) < 32:
            raise ValueError("webhook_url takes a webhook_secret of at least 32 characters with it")
        if self.smtp_host and not self.mail_from:
            raise ValueError("smtp_host takes mail_from with it")
        if self.smtp_host and self.smtp_security == "none" and not is_loopback(self.smtp_host):
            raise ValueError("smtp_security: none is for loopback addresses only")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("smtp_username and smtp_password go together")
        return self


class AuditStreamSettings(_Section):
    """Where each event of the audit is sent once it is sealed."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    kind: Literal["file", "http", "syslog"]
    format: Literal["json", "ocsf"] = "json"
    file: Path | None = None
    url: WebUrl | None = None
    authorization: SecretStr | None = None
    address: str | None = None
    transport: Literal["tcp", "udp", "unix"] = "tcp"
    allow_private_network: bool = False

    @model_validator(mode="after")
    def _what_each_kind_takes(self) -> Self:
        member = {"file": "file", "http": "url", "syslog": "address"}[self.kind]
        if getattr(self, member) is None:
            raise ValueError(f"kind {self.kind} takes {member} with it")
        if self.kind == "syslog" and self.transport != "unix" and not self.syslog_host():
            raise ValueError("address takes HOST:PORT, or a path where transport is unix")
        return self

    def syslog_host(self) -> tuple[str, int] | None:
        """The host and port of `address`; None where it has none."""
        host, _, port = (self.address or "").rpartition(":")
        return (host.strip("[]"), int(port)) if host and port.isdecimal() and 0 < int(port) < 65_536 else None


class AuditSettings(_Section):
    """How long events are kept, and who else is told of them."""

    keep_days: int = Field(default=0, ge=0, le=36_500)
    witness_file: Path | None = None
    witness_url: WebUrl | None = None
    allow_private_network: bool = False
    streams: tuple[AuditStreamSettings, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({stream.name for stream in self.streams}) != len(self.streams):
            raise ValueError("streams: two have the same name")
        return self


class PagesSettings(_Section):
    """What people see, and how they stay signed in. Times are in seconds."""

    site_name: Annotated[str, AfterValidator(_page_name)] = "authserver"
    reauthenticate_after: int = Field(default=300, ge=30, le=86_400)
    session_idle: int = Field(default=1_800, ge=60, le=2_592_000)
    session_longest: int = Field(default=43_200, ge=60, le=2_592_000)
    tries_per_account: int = Field(default=10, ge=3, le=1_000)
    tries_per_address: int = Field(default=100, ge=3, le=100_000)
    tries_window: int = Field(default=900, ge=60, le=86_400)
    proxies: int = Field(default=0, ge=0, le=10)


class UpstreamSettings(_Section):
    """An OpenID provider with which people may sign in; there is one where `issuer` is said."""

    issuer: WebUrl | None = None
    label: Annotated[str, AfterValidator(_page_name)] = "OpenID Connect"
    client_id: str = Field(default="", max_length=255)
    client_secret: SecretStr = SecretStr("")
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    username_claim: str = Field(default="email", min_length=1)
    groups_claim: str | None = None
    create_users: bool = False
    allow_private_network: bool = False
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.issuer is None:
            return self
        if not self.client_id or not self.client_secret.get_secret_value():
            raise ValueError("issuer takes client_id and client_secret with it")
        if "openid" not in self.scopes:
            raise ValueError("scopes: takes openid and what else the claims need")
        if self.issuer.startswith("http:") and not self.allow_private_network:
            raise ValueError("an http URL takes allow_private_network = true with it")
        return self


class ClientMetadataSettings(_Section):
    """Agents whose client_id is the address of a document. Times are in seconds."""

    refresh_after: int = Field(default=300, ge=10, le=3_600)
    allow_private_network: bool = False
    ca_file: Path | None = None


class TasksSettings(_Section):
    """How long a task may go on, in seconds, and how many tokens may be issued for it; no bound where left out."""

    longest: int | None = Field(default=None, ge=1, le=31_536_000)
    most_actions: int | None = Field(default=None, ge=1, le=1_000_000)

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        return self.longest is not None or self.most_actions is not None


class GroupsSettings(BaseModel):
    """Sign-off groups and their members; each key is a group's name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, tuple[str, ...]] = Field(init=False)

    @property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """The user names of each group."""
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.members:
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
                raise ValueError(f"{name!a}: a group's name takes a-z 0-9 _ - and begins with a letter")
        return self


class ApiCallerSettings(_Section):
    """Who may call the administrators' API with an assertion of a trust domain: a workload, or whoever has a claim."""

    trust_domain: str
    subject: str | None = Field(default=None, min_length=1)
    claim: str | None = Field(default=None, min_length=1)
    value: str | None = Field(default=None, min_length=1)
    role: Literal["viewer", "revoker", "operator", "owner"]

    @model_validator(mode="after")
    def _one_way_to_know_it(self) -> Self:
        if (self.claim is None) != (self.value is None) or (self.subject is None) == (self.claim is None):
            raise ValueError("takes subject, or claim and value")
        return self


class ApiSettings(_Section):
    """The administrators' API."""

    requests_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    callers: tuple[ApiCallerSettings, ...] = ()


class LogSettings(_Section):
    """What is written while the server runs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class EventsSettings(_Section):
    """How Security Event Tokens are pushed to resource servers."""

    allow_private_network: bool = False
    ca_file: Path | None = None


class MetricsSettings(_Section):
    """Who may read `/metrics`, and where several processes count together."""

    networks: tuple[IPvAnyNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    token: SecretStr | None = Field(default=None, min_length=20)
    directory: Path | None = None


class TracesSettings(_Section):
    """Where spans of the exchange are sent; nowhere, where there is no `endpoint`."""

    endpoint: WebUrl | None = None
    share: float = Field(default=1.0, gt=0, le=1)


class TrustDomainSettings(_Section):
    """One source of workload identities (contract §3)."""

    name: Annotated[str, AfterValidator(_trust_domain_name)]
    kind: Literal["spiffe", "kubernetes", "oidc"]
    issuer: str | None = None
    jwks_file: Path | None = None
    jwks_url: WebUrl | None = None
    discovery: bool = False
    bundle_endpoint_url: WebUrl | None = None
    algorithms: tuple[str, ...] = ("ES256", "RS256")
    max_lifetime: int = Field(default=3600, ge=1, le=31_536_000)
    refuse_repeated_jti: bool = False
    allow_private_network: bool = False
    ca_file: Path | None = None
    refresh_after: int = Field(default=300, ge=1, le=300)
    stale_for: int = Field(default=3600, ge=0, le=604_800)

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        sources = [self.jwks_file, self.jwks_url, self.discovery or None, self.bundle_endpoint_url]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("takes exactly one of jwks_file, jwks_url, discovery and bundle_endpoint_url")
        if self.discovery and self.issuer:
            _web_url(self.issuer)
        urls = [self.jwks_url, self.bundle_endpoint_url, self.issuer if self.discovery else None]
        if any(url and url.startswith("http:") for url in urls) and not self.allow_private_network:
            raise ValueError("an http URL takes allow_private_network = true with it")
        return self

    @model_validator(mode="after")
    def _what_its_kind_takes(self) -> Self:
        if self.kind == "spiffe":
            if self.issuer or self.discovery:
                raise ValueError("a spiffe trust domain takes no issuer and no discovery")
            return self
        # A SPIFFE domain's tokens are known by spiffe://NAME: no other kind may pass for one.
        if not self.issuer or self.issuer.startswith("spiffe:"):
            raise ValueError(f"issuer: a trust domain of kind {self.kind} takes the iss of its assertions")
        if self.bundle_endpoint_url:
            raise ValueError("bundle_endpoint_url is for spiffe trust domains")
        return self

    @model_validator(mode="after")
    def _known_algorithms(self) -> Self:
        if not self.algorithms or set(self.algorithms) - set(ALGORITHMS):
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
    policies: PoliciesSettings = PoliciesSettings()
    delegations: DelegationsSettings = DelegationsSettings()
    authorization: AuthorizationSettings = AuthorizationSettings()
    ledger: LedgerSettings = LedgerSettings()
    dpop: DpopSettings = DpopSettings()
    approvals: ApprovalsSettings = ApprovalsSettings()
    notifications: NotificationsSettings = NotificationsSettings()
    pages: PagesSettings = PagesSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()
    client_metadata: ClientMetadataSettings = ClientMetadataSettings()
    tasks: TasksSettings = TasksSettings()
    groups: GroupsSettings = GroupsSettings()
    events: EventsSettings = EventsSettings()
    metrics: MetricsSettings = MetricsSettings()
    api: ApiSettings = ApiSettings()
    traces: TracesSettings = TracesSettings()
    trust_domains: tuple[TrustDomainSettings, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.trust_domains:
            raise ValueError("trust_domains: takes one or more")
        names = [domain.name for domain in self.trust_domains]
        issuers = [domain.issuer for domain in self.trust_domains if domain.issuer]
        if len(set(names)) != len(names):
            raise ValueError("trust_domains: two have the same name")
        if len(set(issuers)) != len(issuers) or self.server.issuer in issuers:
            raise ValueError("trust_domains: two have the same issuer, or one has this server's")
        if unknown := {caller.trust_domain for caller in self.api.callers} - set(names):
            raise ValueError(f"api.callers: takes configured trust domains; {min(unknown)} is none")
        return self


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration file and, over it, the environment.

    `path` defaults to `AUTHSERVER_CONFIG`, then `config/authserver.toml`. Relative paths are relative to that
    file, also those of the environment. Raises `ConfigurationError` with a line for each key that is wrong.
    """
    path = (path or Path(os.environ.get("AUTHSERVER_CONFIG", SHIPPED / "authserver.toml"))).absolute()
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such configuration file (AUTHSERVER_CONFIG names it)")
    _check_environment()
    try:
        loaded = _from_file(path)
    except ValidationError as error:
        raise ConfigurationError(_in_words(path, error)) from error
    except SettingsError as error:
        raise ConfigurationError(f"environment: {error}: takes JSON") from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name in ("encryption_key", "other_encryption_key"):
        if getattr(loaded.keys, name) and not _from_environment("keys", name):
            _check_private(path, path.stat())
    return _with_absolute_paths(loaded, path.parent)


def read_encryption_key(keys: KeysSettings) -> bytes | None:
    """The key that private keys are encrypted with, 32 bytes; None where its file is still to be made.

    Raises `ConfigurationError` where others can read the file, or it holds no such key.
    """
    if keys.encryption_key:
        return _key_from(keys.encryption_key.get_secret_value())
    return _read_key_file(keys.encryption_key_file, "encryption_key_file")


def read_other_encryption_key(keys: KeysSettings) -> bytes | None:
    """The second key, with which secrets are opened as well while the first is being exchanged; None without one.

    Raises `ConfigurationError` where others can read its file, or it holds no such key.
    """
    if keys.other_encryption_key:
        return _key_from(keys.other_encryption_key.get_secret_value())
    path = keys.other_encryption_key_file
    if path is None:
        return None
    key = _read_key_file(path, "other_encryption_key_file")
    if key is None:
        raise ConfigurationError(f"{path}: keys.other_encryption_key_file: there is no such file")
    return key


def _read_key_file(path: Path, setting: str) -> bytes | None:
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            text = file.read(100).decode("ascii", "replace").strip()
        return _key_from(text)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: keys.{setting}: {reason}") from error


def create_encryption_key(keys: KeysSettings) -> bytes:
    """Make the file of the encryption key, mode 0600. Where another process was faster, its key counts.

    The file appears under its name whole or not at all. Raises `ConfigurationError` if it cannot be made.
    """
    path = keys.encryption_key_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It opens with O_EXCL and mode 0600, and takes its own name away at the end.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)  # unlike a rename, it never replaces
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{path}: keys.encryption_key_file: {error.strerror}") from error
    key = read_encryption_key(keys)
    if key is None:
        raise ConfigurationError(f"{path}: keys.encryption_key_file: was taken away as soon as it was made")
    return key


def _from_file(path: Path) -> Settings:
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

    return _FromFile()  # type: ignore[call-arg]  # its values come from the file and the environment


def _check_environment() -> None:
    sections = {
        name for name, field in Settings.model_fields.items() if isinstance(field.annotation, type(_Section))
    }
    for name in os.environ:
        said = re.match(r"authserver_(.+?)__", name.lower())
        if said and said[1] not in sections:
            raise ConfigurationError(f"{name}: is not a key of the configuration")
    # Flask reads it by itself, and then shows its insides to whoever causes an error.
    if os.environ.get("FLASK_DEBUG", "").lower() not in ("", "0", "false", "no"):
        raise ConfigurationError("FLASK_DEBUG: takes no value here: this server has no debug mode")


def _from_environment(section: str = "", key: str = "") -> str | None:
    # The variable that says this key, if there is one: by itself, or as a part of its whole section.
    said = {name.lower(): name for name in os.environ}
    return said.get(f"authserver_{section}__{key}") or said.get(f"authserver_{section}")


def _check_private(path: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o077:
        raise ConfigurationError(f"{path}: holds a key and others can read it; takes mode 0600 (chmod 600)")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{path}: holds a key; takes the user who runs the server as its owner")


_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a key of the configuration",
    "greater_than_equal": "takes {ge} or more",
    "less_than_equal": "takes {le} or less",
    "int_type": "takes a whole number",
    "int_parsing": "takes a whole number",
    "int_from_float": "takes a whole number",
    "bool_type": "takes true or false",
    "bool_parsing": "takes true or false",
    "string_type": "takes a text",
    "path_type": "takes a path",
    "tuple_type": "takes an array",
    "model_type": "takes a section",
}


def _in_words(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        key = [str(part) for part in problem["loc"]]
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be ", "takes ")
        if words := _WORDS.get(problem["type"]):
            message = words.format_map(problem.get("ctx", {}))
        place = str(_from_environment(*key[:2]) or path)
        lines.append(": ".join(part for part in (place, ".".join(key), message) if part))
    return "\n".join(lines)


def _with_absolute_paths(settings: Settings, base: Path) -> Settings:
    changes: dict[str, Any] = {
        "keys": _absolute(settings.keys, base),
        "audit": _absolute(settings.audit, base).model_copy(
            update={"streams": tuple(_absolute(stream, base) for stream in settings.audit.streams)}
        ),
        "events": _absolute(settings.events, base),
        "metrics": _absolute(settings.metrics, base),
        "catalogue": _absolute(settings.catalogue, base),
        "upstream": _absolute(settings.upstream, base),
        "client_metadata": _absolute(settings.client_metadata, base),
        "policies": _absolute(settings.policies, base),
        "trust_domains": tuple(_absolute(domain, base) for domain in settings.trust_domains),
        "database": settings.database.model_copy(update={"url": _absolute_url(settings.database.url, base)}),
    }
    return settings.model_copy(update=changes)


def _absolute_url(value: SecretStr, base: Path) -> SecretStr:
    url = make_url(value.get_secret_value())
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return value
    return SecretStr(url.set(database=str(base / url.database)).render_as_string(hide_password=False))


def _absolute(section: Section, base: Path) -> Section:
    paths: Mapping[str, Path] = {
        name: base / value for name, value in section.__dict__.items() if isinstance(value, Path)
    }
    return section.model_copy(update=dict(paths))

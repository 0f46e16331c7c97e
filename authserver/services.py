"""What a running server holds: settings, database, keys, vocabulary. One for each process, shared by its threads."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from authserver import config
from authserver.actors.trust_domains import TrustDomains
from authserver.audit.history import History
from authserver.clock import Clock
from authserver.config import ConfigurationError, Settings
from authserver.db import Database
from authserver.delegations.stored_details import StoredDetails
from authserver.dpop import Nonces
from authserver.openid_provider import OpenIdProvider
from authserver.policies.loaded import LoadedPolicies
from authserver.policy.catalogue import CatalogueError, parse_catalogue
from authserver.policy.cedar_text import PolicyError
from authserver.policy.reading import Vocabulary
from authserver.tokens import action_tokens, grants
from authserver.tokens.action_tokens import Actor
from authserver.tokens.authorization_codes import AuthorizationCodes
from authserver.tokens.grants import Grant
from authserver.tokens.own_tokens import OwnTokens
from authserver.tokens.pairwise import PairwiseNames
from authserver.tokens.sealing import Seal, SealBroken
from authserver.tokens.server_secrets import shared_secret
from authserver.tokens.signing_keys import SigningKeys, ensure_key, has_keys
from authserver.tokens.status_lists import StatusIndexes
from authserver.values import CountryGroups, Datatypes, NotAValue


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a use case may need besides its request and the time."""

    settings: Settings
    clock: Clock
    database: Database
    vocabulary: Vocabulary
    policies: LoadedPolicies
    stored: StoredDetails
    trust_domains: TrustDomains
    seal: Seal
    signing_keys: SigningKeys
    grants: OwnTokens[Grant]
    action_tokens: OwnTokens[str]
    pairwise: PairwiseNames
    nonces: Nonces
    authorization_codes: AuthorizationCodes
    status_indexes: StatusIndexes
    approvals_secret: bytes = field(repr=False)
    upstream: OpenIdProvider | None
    history: History = field(default_factory=History)

    @property
    def issuer(self) -> str:
        """The issuer identifier."""
        return self.settings.server.issuer

    @property
    def token_endpoint(self) -> str:
        """The token endpoint's URL, as the metadata names it."""
        return f"{self.issuer}/oauth/token"

    def actor(self, trust_domain: str, subject: str) -> Actor:
        """A workload as `act` and `may_act` name it (contract §3)."""
        try:
            return Actor(self.trust_domains.issuer_of(trust_domain), subject)
        except KeyError:  # no longer configured: nothing it vouches for is believed any more
            return Actor(f"spiffe://{trust_domain}", subject)

    def longest_life(self) -> timedelta:
        """The longest that anything signed by this server may live: a delegation grant."""
        return timedelta(days=self.settings.delegations.longest_days)


def open_database(settings: Settings) -> Database:
    """The configured database, not yet spoken to."""
    database = settings.database
    return Database(
        database.url.get_secret_value(),
        database.pool_size,
        database.statement_timeout,
        prepared_statements=database.prepared_statements,
    )


def load_vocabulary(settings: Settings) -> Vocabulary:
    """The catalogue, the data types and the country groups. Raises `ConfigurationError`."""
    files = settings.catalogue
    try:
        vocabulary = Vocabulary(
            catalogue=parse_catalogue(_toml(files.actions_file), str(files.actions_file)),
            datatypes=Datatypes.parse(_toml(files.datatypes_file), str(files.datatypes_file)),
            country_groups=CountryGroups.parse(
                _toml(files.country_groups_file), str(files.country_groups_file)
            ),
        )
    except (CatalogueError, NotAValue) as error:
        raise ConfigurationError(str(error)) from error
    _datatypes_are_known(vocabulary, files.actions_file)
    return vocabulary


def _datatypes_are_known(vocabulary: Vocabulary, source: Path) -> None:
    for name, entry in vocabulary.catalogue.entries.items():
        for datatype in entry.datatypes or ():
            if not vocabulary.datatypes.known(datatype):
                raise ConfigurationError(f"{source}: {name}: datatypes: there is no {datatype!a}")


def _toml(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def open_services(settings: Settings, clock: Clock, database: Database | None = None) -> Services:
    """Open everything; makes the first signing key and the shared secrets where there are none.

    Raises `ConfigurationError` where the configuration, the catalogue or the encryption key cannot be used.
    """
    vocabulary = load_vocabulary(settings)
    trust_domains = TrustDomains(settings.trust_domains, issuer=settings.server.issuer)
    database = database or open_database(settings)
    seal = Seal(_encryption_key(settings, database), config.read_other_encryption_key(settings.keys))
    pairwise, nonce_secret, code_secret, approvals_secret = _shared_secrets(database, seal, clock.now())
    signing_keys = SigningKeys(database, seal, clock)
    issuer = settings.server.issuer
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        vocabulary=vocabulary,
        policies=LoadedPolicies(settings.policies.directory, vocabulary.catalogue, database),
        stored=StoredDetails(),
        trust_domains=trust_domains,
        seal=seal,
        signing_keys=signing_keys,
        grants=grants.read_own(issuer, signing_keys),
        action_tokens=action_tokens.read_own(issuer, signing_keys),
        pairwise=PairwiseNames(pairwise),
        nonces=Nonces(nonce_secret, timedelta(seconds=settings.dpop.nonce_lifetime)),
        authorization_codes=AuthorizationCodes(code_secret),
        status_indexes=StatusIndexes(database, clock),
        approvals_secret=approvals_secret,
        upstream=OpenIdProvider.of(settings.upstream, issuer),
    )


def load_policies(services: Services) -> None:
    """Read the organisation's policies, without which nothing is decided. Raises `ConfigurationError`."""
    try:
        services.policies.load()
    except PolicyError as error:
        raise ConfigurationError(str(error)) from error


def _encryption_key(settings: Settings, database: Database) -> bytes:
    key = config.read_encryption_key(settings.keys)
    if key is not None:
        return key
    if database.read(has_keys):
        raise ConfigurationError(
            f"keys.encryption_key_file: takes the file with which this database's secrets were encrypted; there is no "
            f"{settings.keys.encryption_key_file}"
        )
    return config.create_encryption_key(settings.keys)


def _shared_secrets(database: Database, seal: Seal, now: datetime) -> tuple[bytes, bytes, bytes, bytes]:
    def read_or_make(connection: Connection) -> tuple[bytes, bytes, bytes, bytes]:
        ensure_key(connection, seal, now)
        return (
            shared_secret(connection, seal, "pairwise", now),
            shared_secret(connection, seal, "dpop-nonce", now),
            shared_secret(connection, seal, "authorization-code", now),
            shared_secret(connection, seal, "approvals", now),
        )

    try:
        return database.write(read_or_make)
    except SealBroken as error:
        raise ConfigurationError(
            "keys.encryption_key: takes the key with which this database's secrets were encrypted; this is another"
        ) from error

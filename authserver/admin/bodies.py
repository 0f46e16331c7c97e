"""What callers send: the shape of each body and of each query, as the document shows it.

What does not fit is refused with 400 before anything is looked at, unknown members among it. What fits and means
nothing here, such as a trust domain that is not configured, is refused with 422 by whoever reads records everywhere.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# No control characters, which no name and no id of ours has.
_PLAIN = r"^[^\u0000-\u001f\u007f]*$"
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)]
LongText = Annotated[str, Field(min_length=1, max_length=2048, pattern=_PLAIN)]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$",
        examples=["2026-12-24T00:00:00Z"],
    ),
]
YesOrNo = Literal["true", "false"]
RoleName = Literal["viewer", "revoker", "operator", "owner"]
StateName = Literal["draft", "observe", "enforce"]
Object = dict[str, Any]


def _digits(unverified: object) -> object:
    """A number as the query has it: digits and nothing else."""
    is_number = (
        isinstance(unverified, str) and unverified.isascii() and unverified.isdigit() and len(unverified) < 10
    )
    return int(unverified) if is_number and isinstance(unverified, str) else unverified


def _whole(unverified: object) -> object:
    """To JSON Schema, 10.0 is an integer."""
    return int(unverified) if isinstance(unverified, float) and unverified.is_integer() else unverified


class Sent(BaseModel):
    """What all bodies and queries have in common: no other members, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# --- queries ------------------------------------------------------------------------------------------------------


class ListQuery(Sent):
    """A page of a list: at most `limit` items, after the `cursor` that the page before gave."""

    limit: Annotated[int, Field(ge=1, le=200), BeforeValidator(_digits)] = 50
    cursor: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[A-Za-z0-9_-]+$")] | None = None

    def filters(self) -> dict[str, str]:
        """The filters that the caller named."""
        said = self.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
        return {name: str(value) for name, value in said.items()}


class AgentsQuery(ListQuery):
    """`q` is looked for in the client id, the name and the subject."""

    q: Text | None = None
    trust_domain: Text | None = None
    owner: Text | None = None
    disabled: YesOrNo | None = None


class ResourceServersQuery(ListQuery):
    """`q` is looked for in the identifier and the name."""

    q: Text | None = None
    auth: Literal["client_secret_basic", "private_key_jwt", "jwt-spiffe"] | None = None
    disabled: YesOrNo | None = None


class UsersQuery(ListQuery):
    """`q` is looked for in the user name and the name."""

    q: Text | None = None
    role: RoleName | None = None
    group: Text | None = None
    disabled: YesOrNo | None = None


class DelegationsQuery(ListQuery):
    """`user` is a user name or id."""

    user: Text | None = None
    client_id: Text | None = None
    root_id: Text | None = None
    task_id: Text | None = None


class ActionsQuery(ListQuery):
    """`since` and `until` are when the token was issued."""

    delegation_id: Text | None = None
    client_id: Text | None = None
    resource_server_id: Text | None = None
    action: Text | None = None
    state: Literal["reserved", "authorized", "captured", "refunded", "voided", "expired"] | None = None
    task_id: Text | None = None
    reference: Text | None = None
    since: Time | None = None
    until: Time | None = None


class ApprovalsQuery(ListQuery):
    """`state` is how it stands now."""

    state: Literal["waiting", "approved", "refused", "expired", "used"] | None = None
    user_id: Text | None = None
    client_id: Text | None = None
    delegation_id: Text | None = None


class EventsQuery(ListQuery):
    """`q` is looked for in all that an event says of itself."""

    q: Text | None = None
    event: Text | None = None
    rule: Text | None = None
    client_id: Text | None = None
    delegation_id: Text | None = None
    action_id: Text | None = None
    since: Time | None = None
    until: Time | None = None


class ExportQuery(Sent):
    """Events from `since` and before `until`; all of them by default."""

    format: Literal["json", "ocsf"] = "json"
    since: Time | None = None
    until: Time | None = None


# --- bodies -------------------------------------------------------------------------------------------------------


class Nothing(Sent):
    """No members."""


class Reason(Sent):
    """Why, for the audit."""

    reason: LongText | None = None


class NewEnrolment(Sent):
    """With `forget`, what the user signs in with today ends: passkeys, password and sessions."""

    forget: bool = False


class NewAgent(Sent):
    """An agent to be registered under its workload; without `actions` it may do whatever users delegate.

    A client id that is the address of a metadata document has its redirect URIs and keys from there.
    """

    client_id: LongText
    trust_domain: Text
    subject: LongText
    name: Text | None = None
    owner: Text | None = None
    risk: Literal["low", "medium", "high"] | None = None
    actions: list[Text] | None = None
    redirect_uris: list[LongText] | None = None
    jwks: Object | None = None


class AgentChange(Sent):
    """Members to be changed (RFC 7396): null takes one away. Never the client id nor the workload."""

    name: Text | None = None
    owner: Text | None = None
    risk: Literal["low", "medium", "high"] | None = None
    actions: list[Text] | None = None
    redirect_uris: list[LongText] | None = None
    jwks: Object | None = None


class Merchant(Sent):
    """The facts on record of the one merchant that a resource server is."""

    id: Text | None = None
    category: Annotated[str, Field(pattern=r"^[0-9]{4}$")] | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    name: Text | None = None


class NewResourceServer(Sent):
    """A resource server to be registered; `jwks` goes with private_key_jwt, `subject` with jwt-spiffe."""

    identifier: LongText
    name: Text | None = None
    merchant: Merchant | None = None
    auth: Literal["client_secret_basic", "private_key_jwt", "jwt-spiffe"] | None = None
    jwks: Object | None = None
    subject: LongText | None = None


class NewUser(Sent):
    """A user to be made. They set a passkey or a password by the link that the answer has."""

    username: Text
    name: Text | None = None
    role: RoleName | None = None
    groups: list[Text] | None = None


class UserChange(Sent):
    """Members to be changed (RFC 7396): null takes one away. Never the user name."""

    name: Text | None = None
    role: RoleName | None = None
    groups: list[Text] | None = None


class NewDelegation(Sent):
    """A delegation without the user's consent: `user` is a user name or id, `agent` a client id."""

    user: Text
    agent: Text
    authorization_details: Annotated[list[Object], Field(min_length=1, max_length=1)]


def _exactly_one(*names: str) -> Callable[[dict[str, Any]], None]:
    def extend(schema: dict[str, Any]) -> None:
        schema["oneOf"] = [{"required": [name]} for name in names]

    return extend


_TARGETS = ("delegation", "agent", "user", "trust_domain", "task", "all")


class NewRevocation(Sent):
    """What is to end, exactly one of six; with `dry_run` it is only counted."""

    model_config = ConfigDict(json_schema_extra=_exactly_one(*_TARGETS))

    # Not null, which would be one that is named and names nothing.
    delegation: LongText = Field(default_factory=str)
    agent: LongText = Field(default_factory=str)
    user: LongText = Field(default_factory=str)
    trust_domain: LongText = Field(default_factory=str)
    task: LongText = Field(default_factory=str)
    all: Literal[True] = Field(default_factory=lambda: True)
    reason: LongText
    dry_run: bool = False

    @property
    def named(self) -> list[str]:
        """Which of the six the caller named."""
        return [name for name in _TARGETS if name in self.model_fields_set]


class PolicyText(Sent):
    """A set of policies that is not there yet, or another text of one that is; without it, the files as they are."""

    set: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    text: Annotated[str, Field(max_length=100_000)]


class PolicyCheck(Sent):
    """What to check: the files as they are, or with one set as it is sent."""

    draft: PolicyText | None = None


class PolicySimulation(Sent):
    """Other policies than those in force: sets in other states, or one with another text; and for which decisions."""

    states: dict[str, StateName] = Field(default_factory=dict)
    draft: PolicyText | None = None
    since: Time | None = None
    until: Time | None = None
    examples: Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole)] = 10


class PolicyState(Sent):
    """How far a set is to go."""

    state: StateName

"""Grant Management for OAuth 2.0 (FAPI): an agent reads what a grant of its own allows, and gives it back."""

from datetime import datetime

from sqlalchemy import Connection

from authserver.actors.agents import Agent
from authserver.audit.events import Record
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal
from authserver.ledger.spending import allowances
from authserver.policy.reading import instant_text
from authserver.revoke import Target, revoke
from authserver.services import Services
from authserver.tokens.grants import Grant
from authserver.values import Money


def query(
    services: Services, grant_id: str, caller: Agent | Grant, record: Record, now: datetime
) -> dict[str, object]:
    """What the grant allows and whether it stands; what is spent of it, to the authenticated agent alone.

    Contract §5. Raises `Refusal` (404) where it is not the caller's.
    """

    def read(connection: Connection) -> dict[str, object]:
        chain = _own(services, connection, grant_id, caller)
        answer = _shown(connection, chain, now)
        if isinstance(caller, Agent):
            answer["spent"] = _spent(connection, chain, now)
        return answer

    answer = services.database.read(read)
    record.client_id, record.delegation_id, record.rule = caller.client_id, grant_id, "permit"
    services.database.write(lambda connection: record.permitted(connection, now))
    return answer


def give_back(services: Services, grant_id: str, caller: Agent, record: Record, now: datetime) -> None:
    """End the delegation and all below it. Raises `Refusal` (404) where it is not the caller's."""
    record.client_id = caller.client_id
    services.database.read(lambda connection: _own(services, connection, grant_id, caller))
    by = f"agent:{caller.client_id}"
    revoke(services, Target("delegation", grant_id), reason="given back by the agent", by=by, now=now)


def _own(services: Services, connection: Connection, grant_id: str, caller: Agent | Grant) -> Chain:
    chain = load_chain(connection, grant_id, services.stored)
    named = caller.delegation_id if isinstance(caller, Grant) else grant_id
    if chain is None or chain.leaf.client_id != caller.client_id or named != grant_id:
        raise Refusal(
            "not_found", "there is no such grant of this client", rule="grant_id.unknown", status=404
        )
    return chain


def _shown(connection: Connection, chain: Chain, now: datetime) -> dict[str, object]:
    leaf = chain.leaf
    return {
        "grant_id": leaf.id,
        "active": ending(connection, chain, now) is None,
        "authorization_details": [leaf.details.to_json()],
        "created_at": instant_text(leaf.created_at.replace(microsecond=0)),
        "expires_at": instant_text(leaf.expires_at),
    }


def _spent(connection: Connection, chain: Chain, now: datetime) -> dict[str, object]:
    leaf = chain.leaf
    spent: dict[str, object] = {"count": leaf.action_count}
    if limits := leaf.details.limits:
        periods = allowances(connection, Chain((leaf,), chain.newest_revocation), now)[0].spent.periods
        spent["total"] = Money(limits.currency, leaf.total_spent).to_json()
        spent["per_period"] = [Money(limits.currency, period).text for period in periods]
    return spent

"""`/agents`: the software that acts."""

from urllib.parse import quote

from sqlalchemy import Connection

from authserver import disable, register
from authserver.admin.bodies import AgentChange, AgentsQuery, NewAgent, Nothing, Reason
from authserver.admin.operations import Call, Operation, Reply, must_match, not_found, shown
from authserver.admin.resources.listing import Resource
from authserver.admin.resources.merging import merged, said
from authserver.administration import lists
from authserver.administration.items import AgentItem
from authserver.administration.lists import one_of
from authserver.administration.roles import Permission
from authserver.agent_documents import DocumentRefused, as_published
from authserver.values import NotAValue

_AGENTS = Resource("/agents", "agent", lists.AGENTS, AgentItem, AgentsQuery, "client_id")


def create(call: Call) -> Reply:
    """Register an agent."""
    agent = register.parse_agent(said(call.sent(NewAgent)), call.services, call.now)
    try:
        agent = as_published(call.services, agent, call.now)
    except DocumentRefused as error:
        raise NotAValue(f"names a document that cannot be used: {error.reason}", "client_id") from error
    call.services.database.write(lambda connection: register.create_agent(connection, agent, call.caller.by))
    reply = _AGENTS.one_of(call, agent.client_id)
    return Reply(reply.body, reply.etag, f"/agents/{quote(agent.client_id)}")


def change(call: Call) -> Reply:
    """Give it another name, owner, actions, redirect URIs or keys."""

    def write(connection: Connection) -> AgentItem | None:
        before = one_of(call.looked(connection), lists.AGENTS, call.name, lock=True)
        if before is None:
            raise not_found("agent")
        must_match(call, before)
        members = register.members_of_agent(register.known_agent(connection, before.client_id))
        wanted = register.parse_agent(merged(members, call.sent(AgentChange)), call.services, call.now)
        register.change_agent(connection, wanted, call.caller.by, call.now)
        return one_of(call.looked(connection), lists.AGENTS, call.name)

    return shown(call.services.database.write(write), "agent")


def put_out(call: Call) -> Reply:
    """Disable it."""
    reason = call.sent(Reason).reason or "agent disabled"
    disable.disable_agent(call.services, call.name, by=call.caller.by, now=call.now, reason=reason)
    return _AGENTS.one_of(call, call.name)


def let_in(call: Call) -> Reply:
    """Enable it again."""
    disable.enable_agent(call.services, call.name, by=call.caller.by, now=call.now)
    return _AGENTS.one_of(call, call.name)


OPERATIONS = (
    *_AGENTS.reads(),
    Operation(
        "agents.create",
        "POST",
        "/agents",
        Permission.CHANGE,
        "Register an agent.",
        create,
        AgentItem,
        201,
        body=NewAgent,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "agents.change",
        "PATCH",
        "/agents/{client_id}",
        Permission.CHANGE,
        "Give an agent another name, owner, actions, redirect URIs or keys.",
        change,
        AgentItem,
        body=AgentChange,
        changes=True,
        shows_etag=True,
    ),
    Operation(
        "agents.disable",
        "POST",
        "/agents/{client_id}/disable",
        Permission.CHANGE,
        "Let an agent do nothing any more; all that it holds ends, for good.",
        put_out,
        AgentItem,
        body=Reason,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "agents.enable",
        "POST",
        "/agents/{client_id}/enable",
        Permission.CHANGE,
        "Let users allow an agent something again. Nothing that it held before revives.",
        let_in,
        AgentItem,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
)

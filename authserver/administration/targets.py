"""What an operator names to be revoked."""

from sqlalchemy import Connection

from authserver.accounts import users
from authserver.actors import agents
from authserver.delegations.standing import Kind
from authserver.revoke import Target, UnknownTarget
from authserver.services import Services


def target_of(services: Services, connection: Connection, kind: Kind, name: str) -> Target:
    """The target of that kind and name, a user by user name or id. Raises `UnknownTarget`."""
    if kind == "user":
        user = users.find(connection, name)
        if user is None:
            raise UnknownTarget(f"there is no user {name}")
        return Target("user", user.user_id)
    if kind == "trust_domain":
        # Also one that is no longer configured, as long as agents are registered under it.
        registered = (agent.trust_domain for agent in agents.list_all(connection))
        if name not in {*services.trust_domains.names, *registered}:
            raise UnknownTarget(f"there is no trust domain {name}")
    return Target(kind, "" if kind == "all" else name)

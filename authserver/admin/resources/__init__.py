"""The operations of each resource, and all of them in the order in which the document shows them."""

from authserver.admin.operations import Operation
from authserver.admin.resources import (
    agents,
    audit_events,
    catalogue,
    delegations,
    keys,
    policies,
    records,
    resource_servers,
    revocations,
    users,
)

ALL: tuple[Operation, ...] = (
    *agents.OPERATIONS,
    *resource_servers.OPERATIONS,
    *users.OPERATIONS,
    *delegations.OPERATIONS,
    *records.OPERATIONS,
    *catalogue.OPERATIONS,
    *policies.OPERATIONS,
    *keys.OPERATIONS,
    *revocations.OPERATIONS,
    *audit_events.OPERATIONS,
)

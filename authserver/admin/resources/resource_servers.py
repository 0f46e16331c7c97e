"""`/resource-servers`: who validates and redeems action tokens."""

from authserver import register
from authserver.admin.bodies import NewResourceServer, Nothing, ResourceServersQuery
from authserver.admin.operations import Call, Operation, Reply
from authserver.admin.resources.listing import Resource
from authserver.admin.resources.merging import said
from authserver.admin.shapes import IssuedServer
from authserver.administration import lists
from authserver.administration.items import ResourceServerItem
from authserver.administration.roles import Permission

_SERVERS = Resource(
    "/resource-servers",
    "resource server",
    lists.RESOURCE_SERVERS,
    ResourceServerItem,
    ResourceServersQuery,
    "id",
)


def create(call: Call) -> Reply:
    """Register a resource server."""
    server = register.parse_resource_server(said(call.sent(NewResourceServer)), call.services, call.now)
    issued = call.services.database.write(
        lambda connection: register.create_resource_server(connection, server, call.caller.by)
    )
    return Reply(issued.to_json(), location=f"/resource-servers/{issued.id}")


def put_out(call: Call) -> Reply:
    """Disable it."""
    call.services.database.write(
        lambda connection: register.disable_resource_server(connection, call.name, call.caller.by, call.now)
    )
    return _SERVERS.one_of(call, call.name)


OPERATIONS = (
    *_SERVERS.reads(),
    Operation(
        "resource_servers.create",
        "POST",
        "/resource-servers",
        Permission.CHANGE,
        "Register a resource server; its secret is shown this once.",
        create,
        IssuedServer,
        201,
        body=NewResourceServer,
        once=True,
    ),
    Operation(
        "resource_servers.disable",
        "POST",
        "/resource-servers/{id}/disable",
        Permission.CHANGE,
        "Let a resource server validate and redeem nothing any more.",
        put_out,
        ResourceServerItem,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
)

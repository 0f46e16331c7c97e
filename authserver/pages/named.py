"""What places and shops are called here: by the names that they are registered under, never by what an agent says."""

from sqlalchemy import Connection

from authserver.actors import resource_servers
from authserver.pages.choices import Names
from authserver.policy.delegation_details import DelegationDetails
from authserver.services import Services


def names_for(services: Services, details: DelegationDetails) -> Names:
    """The names of the places in `details`, and of the shops that are registered there."""
    return services.database.read(lambda connection: names_in(connection, details))


def names_in(connection: Connection, details: DelegationDetails) -> Names:
    """The same, inside a transaction."""
    places, shops = dict[str, str](), dict[str, str]()
    for identifier in details.locations or ():
        server = resource_servers.find_by_identifier(connection, identifier)
        if server is None:
            continue
        places[server.identifier] = server.name
        if server.merchant is not None and server.merchant.id is not None:
            shops[server.merchant.id] = server.merchant.name or server.name
    return Names(places, shops)

"""The WSGI application of one server process, built from the configuration when this module is imported."""

from authserver import agent_documents, guard, upkeep
from authserver.app import create_app
from authserver.config import ConfigurationError

try:
    _app = create_app()
except ConfigurationError as error:
    raise SystemExit(str(error)) from error

_services = _app.extensions["authserver"]
upkeep.start(_services)
agent_documents.start(_services)
_services.policies.watch()
# A request at work has a connection to the database; more at once would only wait for one.
application = guard.Gate(_app, _services.settings.database.pool_size)

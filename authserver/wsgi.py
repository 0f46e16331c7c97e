"""The WSGI application of one server process, built from the configuration when this module is imported."""

from authserver import upkeep
from authserver.app import create_app
from authserver.config import ConfigurationError

try:
    application = create_app()
except ConfigurationError as error:
    raise SystemExit(str(error)) from error

upkeep.start(application.extensions["authserver"])

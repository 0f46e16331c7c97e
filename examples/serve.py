"""A server that keeps running at http://127.0.0.1:8000, with the demonstration data, and a shop to use tokens at.

    make serve

The data are made once, in var/ (or where `AUTHSERVER_CONFIG` and `AUTHSERVER_DATABASE__URL` say); Ctrl-C ends it all.
"""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from authserver.config import ConfigurationError, Settings, load_settings
from examples.processes import DidNotStart, port_is_free, running
from examples.world import (
    HELPER,
    ROOT,
    SCOUT,
    Operator,
    Registered,
    VerbFailed,
    World,
    populate,
    what_ada_allows_the_helper,
    what_ada_allows_the_scout,
    workload,
)

VAR = ROOT / "var"
SHOP_PORT = 8001
SHOP = f"http://127.0.0.1:{SHOP_PORT}/api"
LASTS = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Kept:
    """What cannot be asked of the server again: the resource servers' secrets."""

    path: Path
    database: str

    def read(self) -> World | None:
        """What was made before, in this database."""
        if not self.path.exists():
            return None
        kept = json.loads(self.path.read_text(encoding="utf-8"))
        if kept["database"] != self.database:
            return None
        return World(shop=Registered(**kept["shop"]), market=Registered(**kept["market"]))

    def write(self, world: World) -> None:
        """Keep it, readable by its owner alone."""
        kept = {"database": self.database}
        servers = {"shop": world.shop, "market": world.market}
        kept |= {
            name: {"id": server.id, "identifier": server.identifier, "secret": server.secret}
            for name, server in servers.items()
        }
        _write_private(self.path, json.dumps(kept, indent=2))


def main() -> int:
    """Serve until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(load_settings())
    except (ConfigurationError, VerbFailed, DidNotStart) as error:
        print(f"{error}\n\nTo start over, move {VAR} away.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEnded.")
    return 0

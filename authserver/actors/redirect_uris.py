"""Where an answer may be sent: exactly where the agent is registered to take it (threats A110)."""

import re
from collections.abc import Iterable

# A loopback address is this machine whatever the port; a native app gets a free one only when it starts.
_LOOPBACK = re.compile(
    r"(?P<host>http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::(?P<port>[1-9][0-9]{0,4}))?(?P<rest>[/?].*)?"
)
_LONGEST = 2_048


def is_registered(unverified_uri: str, registered: Iterable[str]) -> bool:
    """Whether `unverified_uri` is one of `registered`: letter by letter, but for the port of a loopback one.

    RFC 9700 §4.1.3, RFC 8252 §7.3.
    """
    if len(unverified_uri) > _LONGEST:
        return False
    return any(unverified_uri == uri or _same_but_for_port(unverified_uri, uri) for uri in registered)


def _same_but_for_port(unverified_uri: str, registered: str) -> bool:
    asked, known = _LOOPBACK.fullmatch(unverified_uri), _LOOPBACK.fullmatch(registered)
    if asked is None or known is None or int(asked["port"] or 80) > 65_535:
        return False
    return (asked["host"], asked["rest"]) == (known["host"], known["rest"])

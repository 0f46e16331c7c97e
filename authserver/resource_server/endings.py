"""What this resource server was told has ended, until no token could still be shown for it."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta

from authserver.jose import TokenRefused
from authserver.resource_server.action_token import ActionToken

# No token lives longer than 300 s (contract §6); two clocks may differ, and events may be late.
_KEPT = timedelta(hours=1)
_MOST = 100_000


class Endings:
    """Delegations and tokens that ended, by the names that tokens have here. Threads may share it.

    What ended then ends what was issued until then: a token that is newer was issued knowing of it. Status lists still
    decide; this only knows sooner.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # When each ended, and until when that is kept: the one that is kept for longest comes last.
        self._ended: OrderedDict[Hashable, tuple[datetime, datetime]] = OrderedDict()
        self._everything: datetime | None = None

    def grant(self, grant_id: str, at: datetime, now: datetime) -> None:
        """What was issued under that delegation until `at` has ended."""
        self._remember(("grant", grant_id), at, now)

    def token(self, jti: str, at: datetime, now: datetime) -> None:
        """That token has ended."""
        self._remember(("token", jti), at, now)

    def everything(self, at: datetime) -> None:
        """Whatever was issued until `at` has ended."""
        with self._lock:
            self._everything = max(at, self._everything or at)

    def goes_on(self, grant_id: str, at: datetime) -> None:
        """That delegation goes on, since `at`."""
        with self._lock:
            ended = self._ended.get(("grant", grant_id))
            if ended is not None and ended[0] <= at:
                del self._ended[("grant", grant_id)]

    def check(self, token: ActionToken) -> None:
        """Go on unless the token is known to have ended. Raises `jose.TokenRefused("token.ended")`."""
        if self._everything is not None and token.issued_at <= self._everything:
            raise TokenRefused("token.ended")
        if not self._ended:
            return
        for name in (("grant", token.grant_id), ("token", token.jti)):
            ended = self._ended.get(name)
            if ended is not None and token.issued_at <= ended[0]:
                raise TokenRefused("token.ended")

    def _remember(self, name: Hashable, at: datetime, now: datetime) -> None:
        with self._lock:
            before = self._ended.pop(name, None)
            self._ended[name] = (at if before is None else max(at, before[0]), now + _KEPT)
            # Oldest first: what is over is at the front. Beyond that many, the lists alone decide.
            while self._ended and (len(self._ended) > _MOST or self._is_over(now)):
                self._ended.popitem(last=False)

    def _is_over(self, now: datetime) -> bool:
        return next(iter(self._ended.values()))[1] <= now

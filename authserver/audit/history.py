"""Whether this database knows all that it once knew: an old back-up that was restored does not."""

from authserver.errors import Refusal


class History:
    """What one process believes; `missing` says what the database lacks, None where it lacks nothing."""

    def __init__(self) -> None:
        self.missing: str | None = None

    def must_be_whole(self) -> None:
        """Mint nothing and settle nothing on what an old back-up says. Raises `Refusal` (503).

        INVARIANT: what was revoked after a back-up is not allowed again by restoring it
        (test_F15_an_old_back_up_mints_nothing_until_it_is_told).
        """
        if self.missing is not None:
            raise Refusal(
                "temporarily_unavailable",
                "the server was restored from a back-up and waits for its operator",
                rule="audit.restored",
                status=503,
                headers={"Retry-After": "60"},
            )

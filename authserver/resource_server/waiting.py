"""Whether a check may wait for the network: a thread may, an event loop may not."""


class WouldWait(Exception):
    """Something must be fetched first, and the caller cannot wait. It asks again from where it can."""

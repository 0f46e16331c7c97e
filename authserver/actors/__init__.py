"""Who is calling: agents, resource servers, the trust domains that vouch for workloads, and how each proves
itself.
"""


class AlreadyRegistered(Exception):
    """An agent or a resource server of that id, workload or identifier is there already."""


class NotRegistered(Exception):
    """There is no agent or resource server of that id."""

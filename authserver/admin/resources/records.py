"""`/actions`, `/redemptions` and `/approvals`: what was done, used and asked; and `/trust-domains`, who vouches."""

from authserver.admin.bodies import ActionsQuery, ApprovalsQuery, ListQuery
from authserver.admin.operations import Call, Operation, Reply, shown
from authserver.admin.resources.listing import Resource, page_of_all
from authserver.admin.shapes import PageOf
from authserver.administration import lists
from authserver.administration.items import ActionItem, ApprovalItem, RedemptionItem, TrustDomainItem
from authserver.administration.roles import Permission
from authserver.administration.shown import trust_domains

_ACTIONS = Resource("/actions", "action", lists.ACTIONS, ActionItem, ActionsQuery, "id")
_REDEMPTIONS = Resource("/redemptions", "redemption", lists.REDEMPTIONS, RedemptionItem, ActionsQuery, "id")
_APPROVALS = Resource("/approvals", "approval", lists.APPROVALS, ApprovalItem, ApprovalsQuery, "id")


def list_domains(call: Call) -> Reply:
    """A page of them, as they stand in the configuration."""
    return page_of_all(call, trust_domains(call.services, call.now), "name")


def read_domain(call: Call) -> Reply:
    """One of them."""
    named = (domain for domain in trust_domains(call.services, call.now) if domain.name == call.name)
    return shown(next(named, None), "trust domain")


OPERATIONS = (
    *_ACTIONS.reads(),
    *_REDEMPTIONS.reads(),
    *_APPROVALS.reads(),
    Operation(
        "trust_domains.list",
        "GET",
        "/trust-domains",
        Permission.READ,
        "A page of the configured trust domains, and how old their keys are.",
        list_domains,
        PageOf[TrustDomainItem],
        query=ListQuery,
    ),
    Operation(
        "trust_domains.read",
        "GET",
        "/trust-domains/{name}",
        Permission.READ,
        "One trust domain.",
        read_domain,
        TrustDomainItem,
        shows_etag=True,
    ),
)

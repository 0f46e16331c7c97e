"""`/catalogue`: every sensitive action, who answers for it, and where nobody does."""

from authserver.admin.bodies import ListQuery
from authserver.admin.operations import Call, Operation, Reply, shown
from authserver.admin.resources.listing import page_of_all
from authserver.admin.shapes import CatalogueItem, EscalationItem, PageOf
from authserver.administration.gaps import Owned, owned
from authserver.administration.roles import Permission


def list_actions(call: Call) -> Reply:
    """A page of them, in the order of the catalogue."""
    return page_of_all(call, _all(call), "name")


def read_action(call: Call) -> Reply:
    """One of them."""
    return shown(next((one for one in _all(call) if one.name == call.name), None), "action of the catalogue")


def _all(call: Call) -> list[CatalogueItem]:
    catalogue = call.services.vocabulary.catalogue
    found = call.services.database.read(lambda c: owned(c, catalogue, call.services.settings.groups.members))
    return [_item(one) for one in found]


def _item(one: Owned) -> CatalogueItem:
    entry = one.entry
    return CatalogueItem(
        name=entry.name,
        title=entry.title,
        owner=entry.owner,
        approver=entry.approver,
        approvals=entry.approvals,
        approval=entry.approval,
        escalation=[EscalationItem(to=s.to, after=int(s.after.total_seconds())) for s in entry.escalation],
        needs=sorted(entry.needs),
        budget=entry.budget,
        lifetime=entry.lifetime,
        redeem=entry.redeem,
        sender_constraint=entry.sender_constraint,
        datatypes=entry.datatypes,
        members=one.members,
        gaps=one.gaps,
    )


OPERATIONS = (
    Operation(
        "catalogue.list",
        "GET",
        "/catalogue",
        Permission.READ,
        "A page of the actions with who answers for each, and the roles that nobody can play.",
        list_actions,
        PageOf[CatalogueItem],
        query=ListQuery,
    ),
    Operation(
        "catalogue.read",
        "GET",
        "/catalogue/{name}",
        Permission.READ,
        "One action of the catalogue.",
        read_action,
        CatalogueItem,
        shows_etag=True,
    ),
)

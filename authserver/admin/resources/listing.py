"""Lists and single records, which are alike for every resource."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from authserver.admin.bodies import ListQuery
from authserver.admin.operations import Call, Operation, Reply, shown
from authserver.admin.shapes import PageOf
from authserver.administration.cursors import page_of_named
from authserver.administration.items import Shown
from authserver.administration.lists import Listing, one_of, page_of
from authserver.administration.roles import Permission


@dataclass(frozen=True, slots=True)
class Resource:
    """What its paths begin with, what one of it is called, its list, and how it is named in a path."""

    path: str
    one: str
    listing: Listing[Any]
    item: Any
    query: type[ListQuery]
    id: str

    def reads(self) -> tuple[Operation, ...]:
        """To list it and to read one of it."""
        name = self.path.strip("/").replace("-", "_")
        listed = Operation(
            f"{name}.list",
            "GET",
            self.path,
            Permission.READ,
            f"A page of the {self.path.strip('/').replace('-', ' ')}.",
            self._list,
            PageOf[self.item],  # type: ignore[name-defined]
            query=self.query,
        )
        read = Operation(
            f"{name}.read",
            "GET",
            f"{self.path}/{{{self.id}}}",
            Permission.READ,
            f"One {self.one}.",
            self._read,
            self.item,
            shows_etag=True,
        )
        return listed, read

    def _list(self, call: Call) -> Reply:
        query = call.asked(ListQuery)
        page = call.services.database.read(
            lambda connection: page_of(
                call.looked(connection), self.listing, query.filters(), query.limit, query.cursor
            )
        )
        return Reply({"items": [item.to_json() for item in page.items], "next_cursor": page.next_cursor})

    def _read(self, call: Call) -> Reply:
        return self.one_of(call, call.name)

    def one_of(self, call: Call, value: object) -> Reply:
        """The answer with one record. Raises `Refusal` (404)."""
        found = call.services.database.read(
            lambda connection: one_of(call.looked(connection), self.listing, value)
        )
        return shown(found, self.one)


def page_of_all(call: Call, items: Iterable[Shown], name: str) -> Reply:
    """A page of what files and settings say, in their order; the member `name` names an item."""
    query = call.asked(ListQuery)
    named = {str(getattr(item, name)): item for item in items}
    page = page_of_named(named, query.limit, query.cursor)
    return Reply({"items": [item.to_json() for item in page.items], "next_cursor": page.next_cursor})

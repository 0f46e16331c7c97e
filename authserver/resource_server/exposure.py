"""Of a person's record, what a token lets its holder see (contract §4, `datatypes`). Pure."""

from collections.abc import Mapping

from authserver.discovery import DatatypeTree


def everything_in(datatypes: tuple[str, ...], contains: DatatypeTree) -> frozenset[str]:
    """The data types with all that they contain, directly or not."""
    found: set[str] = set()
    due = list(datatypes)
    while due:
        name = due.pop()
        if name not in found:
            found.add(name)
            due.extend(contains.get(name, ()))
    return frozenset(found)


def exposed(
    record: Mapping[str, object], visible: frozenset[str], contains: DatatypeTree, fields: Mapping[str, str]
) -> dict[str, object]:
    """The record without each field whose data type is not among `visible`.

    A field's data type is what `fields` says, or its own name. A field that holds an object and whose type contains
    others is looked into, and what is in there is judged by its own type; so a field of no known type is dropped
    wherever it stands.
    """
    kept: dict[str, object] = {}
    for field, value in record.items():
        datatype = fields.get(field, field)
        if isinstance(value, Mapping) and contains.get(datatype):
            if inside := exposed(value, visible, contains, fields):
                kept[field] = inside
        elif datatype in visible:
            kept[field] = value
    return kept

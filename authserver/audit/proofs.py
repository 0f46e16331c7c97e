"""Proofs that need neither the audit nor this server: that an event is in the tree, that the tree only grew.

Each is a JSON object with the signed heads that it leads to; hashes are hexadecimal (RFC 9162 §2.1.3, §2.1.4).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from authserver import jose
from authserver.audit import batches, heads
from authserver.audit.batches import Batch
from authserver.audit.events import event_of
from authserver.audit.heads import Head, HeadRefused
from authserver.audit.tree import (
    HASH_BYTES,
    ProofRefused,
    Span,
    Tree,
    check_consistency,
    check_inclusion,
    consistency_spans,
    inclusion_spans,
)

_MOST_STEPS = 64  # a path through a tree of 2^64 leaves


def of_event(connection: Connection, number: int) -> dict[str, object]:
    """That the event of this number is in the tree of the newest head. Raises `LookupError` where it is not."""
    row, newest = batches.events_of(connection, [number]).get(number), batches.latest(connection)
    place = _position(connection, number)
    if row is None or newest is None or place is None:
        raise LookupError(f"there is no sealed event {number}")
    return {
        "event": event_of(row).to_json() | {"leaf": place},
        "inclusion": _roots(connection, inclusion_spans(place, newest.tree.size)),
        "head": newest.head,
    }


def of_growth(connection: Connection, size: int) -> dict[str, object]:
    """That the tree after `size` events is the beginning of that of the newest head. Raises `LookupError`."""
    newest = batches.latest(connection)
    earlier = batches.head_at(connection, size)
    if newest is None or earlier is None:
        raise LookupError(f"there is no head after {size} events")
    return {
        "earlier_head": earlier,
        "consistency": _roots(connection, consistency_spans(size, newest.tree.size)),
        "head": newest.head,
    }


def check(unverified: Mapping[str, object], keys: Sequence[jose.VerificationKey], issuer: str) -> str:
    """What a proof shows, in words. Raises `ProofRefused`."""
    head = _head(unverified.get("head"), keys, issuer)
    event = unverified.get("event")
    if isinstance(event, dict):
        place = event.get("leaf")
        if type(place) is not int:
            raise ProofRefused("no such position")
        leaf = batches.leaf_of({name: value for name, value in event.items() if name != "leaf"})
        check_inclusion(leaf, place, head.tree_size, _hashes(unverified.get("inclusion")), head.root)
        return f"event {event.get('id')} is leaf {place} of the {head.tree_size} that were signed"
    earlier = _head(unverified.get("earlier_head"), keys, issuer)
    steps = _hashes(unverified.get("consistency"))
    check_consistency(earlier.tree_size, head.tree_size, steps, earlier.root, head.root)
    return f"the first {earlier.tree_size} of the {head.tree_size} events that were signed are as they were"


def _head(unverified: object, keys: Sequence[jose.VerificationKey], issuer: str) -> Head:
    try:
        head = heads.read(unverified if isinstance(unverified, str) else "", keys)
    except HeadRefused as error:
        raise ProofRefused(f"its head {error}") from error
    if head.issuer != issuer:
        raise ProofRefused(f"its head is of another server, {head.issuer}")
    return head


def _hashes(unverified: object) -> list[bytes]:
    try:
        steps = [bytes.fromhex(step) for step in unverified] if isinstance(unverified, list) else None
    except (ValueError, TypeError):
        steps = None
    if steps is None or len(steps) > _MOST_STEPS or any(len(step) != HASH_BYTES for step in steps):
        raise ProofRefused("no list of hashes")
    return steps


def _position(connection: Connection, number: int) -> int | None:
    for first, numbers in batches.all_numbers(connection):
        if number in numbers:
            return first + numbers.index(number)
    return None


def _roots(connection: Connection, spans: Sequence[Span]) -> list[str]:
    """The root over each span, in one pass, so that no more than a batch is in memory."""
    trees = [Tree() for _ in spans]
    for batch in batches.all_batches(connection):
        trees = [_grown(tree, span, batch) for tree, span in zip(trees, spans, strict=True)]
    return [tree.root().hex() for tree in trees]


def _grown(tree: Tree, span: Span, batch: Batch) -> Tree:
    start, end = (max(0, place - batch.first) for place in span)
    return tree.with_leaves([leaf.hash for leaf in batch.leaves[start:end]])

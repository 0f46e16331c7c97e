"""A Merkle tree over leaves in their order, as Certificate Transparency keeps it (RFC 9162 §2.1); pure.

A hash is 32 bytes of SHA-256. Leaves and nodes are hashed under different prefixes, so that neither passes for the
other. `Tree` holds only the roots of its perfect subtrees, which is all that more leaves need.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

HASH_BYTES = 32
_LEAF, _NODE = b"\x00", b"\x01"
# Leaves from the one position, up to the other but without it.
Span = tuple[int, int]


class ProofRefused(ValueError):
    """A proof shows nothing: it is of the wrong length, or leads to another root."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf (§2.1.1)."""
    return hashlib.sha256(_LEAF + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """How many leaves there are, and the root of each perfect subtree from the largest to the smallest."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def with_leaves(self, hashes: Sequence[bytes]) -> "Tree":
        """The tree with more leaves at its end, given by their hashes."""
        size, peaks = self.size, list(self.peaks)
        for leaf in hashes:
            peaks.append(leaf)
            size += 1
            # Each trailing zero of the new size is a pair of subtrees that are equal now.
            for _ in range((size & -size).bit_length() - 1):
                right = peaks.pop()
                peaks.append(_node_hash(peaks.pop(), right))
        return Tree(size, tuple(peaks))

    def root(self) -> bytes:
        """The root over all leaves; of an empty tree, the hash of nothing (§2.1.1)."""
        if not self.peaks:
            return hashlib.sha256().digest()
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = _node_hash(peak, root)
        return root


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over all these leaves."""
    return Tree().with_leaves(hashes).root()


def inclusion_spans(position: int, size: int) -> list[Span]:
    """The spans whose roots lead from the leaf at `position` to that over `size` (§2.1.3.1). Raises `IndexError`."""
    if not 0 <= position < size:
        raise IndexError(position)
    start, end, spans = 0, size, list[Span]()
    while end - start > 1:
        split = start + _split(end - start)
        if position < split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start = split
    return spans[::-1]


def consistency_spans(first: int, size: int) -> list[Span]:
    """The spans whose roots show that the tree of `first` leaves is the beginning of that of `size` (§2.1.4.1).

    Raises `IndexError` where `first` is not from 1 to `size`.
    """
    if not 1 <= first <= size:
        raise IndexError(first)
    start, end, spans = 0, size, list[Span]()
    while first != end:
        split = start + _split(end - start)
        if first <= split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start = split
    if start:  # else it is the tree of `first` leaves itself, whose root is known already
        spans.append((start, end))
    return spans[::-1]


def inclusion_proof(hashes: Sequence[bytes], position: int) -> list[bytes]:
    """What leads from the leaf at `position` to the root over `hashes`. Raises `IndexError`."""
    return [root_of(hashes[start:end]) for start, end in inclusion_spans(position, len(hashes))]


def consistency_proof(hashes: Sequence[bytes], size: int) -> list[bytes]:
    """What shows that the tree over the first `size` leaves is the beginning of that over all. Raises `IndexError`."""
    return [root_of(hashes[start:end]) for start, end in consistency_spans(size, len(hashes))]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def check_inclusion(leaf: bytes, position: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Hold a leaf's hash to the root of a tree of `size` leaves (§2.1.3.2). Raises `ProofRefused`."""
    if not 0 <= position < size:
        raise ProofRefused("no such position")
    first, last, reached = position, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofRefused("too long")
        if first & 1 or first == last:
            reached = _node_hash(step, reached)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            reached = _node_hash(reached, step)
        first, last = first >> 1, last >> 1
    if last != 0 or reached != root:
        raise ProofRefused("another root")


def check_consistency(
    first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes
) -> None:
    """Hold the tree of `first` leaves to be the beginning of that of `second` (§2.1.4.2). Raises `ProofRefused`."""
    if not 1 <= first <= second:
        raise ProofRefused("no such sizes")
    if first == second:
        if proof or first_root != second_root:
            raise ProofRefused("another root")
        return
    # §2.1.4.2, step 2: a perfect tree is a node of the larger one, which is its own first step.
    steps = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not steps:
        raise ProofRefused("too short")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofRefused("too long")
        if node & 1 or node == last:
            old, new = _node_hash(step, old), _node_hash(step, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = _node_hash(new, step)
        node, last = node >> 1, last >> 1
    if last != 0 or old != first_root or new != second_root:
        raise ProofRefused("another root")

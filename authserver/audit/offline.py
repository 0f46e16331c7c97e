"""An export, held to signed heads with nothing else at hand: neither the server nor its database."""

from collections.abc import Iterable, Mapping, Sequence

from authserver import jose
from authserver.audit import batches, heads
from authserver.audit.heads import Head
from authserver.audit.tree import Tree
from authserver.audit.verification import (
    MOST_PROBLEMS,
    Verified,
    against,
    lost_by,
    was_lost,
    went_back_after,
)


def verify_export(
    events: Iterable[Mapping[str, object]],
    signed_heads: Iterable[str],
    keys: Sequence[jose.VerificationKey],
    issuer: str,
) -> Verified:
    """Hold an export to signed heads, in the order they came in.

    Each event says at which `leaf` it is; those that are not sealed yet say nothing. All leaves have to be there, from
    the first to that of the newest head, so an export of a part cannot be verified alone. Little is held in memory
    where they are nearly in order, as an export has them.
    """
    known, problems = heads.read_file(signed_heads, keys)
    growing = _Growing(issuer, known)
    for event in events:
        growing.event(event)
    growing.end()
    growing.found.problems += problems
    return growing.found


class _Growing:
    """The tree, which grows with each leaf in its turn; those that come before their turn wait."""

    def __init__(self, issuer: str, known: Sequence[Head]) -> None:
        self.found = Verified()
        self._issuer, self._tree, self._held = issuer, Tree(), 0
        self._waiting = dict[int, bytes]()
        # By size, the smallest last; and whether the history went back before it, later on.
        ordered = zip(known, went_back_after(known), strict=True)
        self._heads = sorted(ordered, key=lambda pair: pair[0].tree_size, reverse=True)
        self._contradicted = list[tuple[Head, str]]()  # those that an event may explain
        if not known:
            self._problem("there is no head to hold the export to")
        self._hold()

    def event(self, event: Mapping[str, object]) -> None:
        leaf = event.get("leaf")
        if leaf is None:
            self.found.unsealed += 1
            return
        if type(leaf) is not int or leaf < self._tree.size or leaf in self._waiting:
            self._problem(f"event {event.get('id')}: says leaf {leaf}, which cannot be")
            return
        self.found.sealed += 1
        if (lost := lost_by(event.get("event"), event.get("data"))) is not None:
            self.found.lost.append(lost)
        self._waiting[leaf] = batches.leaf_of({name: event[name] for name in event if name != "leaf"})
        while self._tree.size in self._waiting:
            self._tree = self._tree.with_leaves([self._waiting.pop(self._tree.size)])
            self._hold()

    def end(self) -> None:
        for head, problem in self._contradicted:
            if not was_lost(head, self.found.lost):
                self._problem(problem)
        left = [
            head for head, went_back in self._heads if not (went_back and was_lost(head, self.found.lost))
        ]
        if left:
            newest = left[0].tree_size
            missing = newest - self._tree.size - sum(leaf < newest for leaf in self._waiting)
            self._problem(f"leaf {self._tree.size} and {missing - 1} more are missing from the export")
        elif self.found.heads and (self._waiting or self._tree.size > self._held):
            after = len(self._waiting) + self._tree.size - self._held
            self._problem(f"{after} events are after the newest head")

    def _hold(self) -> None:
        while self._heads and self._heads[-1][0].tree_size == self._tree.size:
            head, went_back = self._heads.pop()
            for problem in against(head, self._tree, self._issuer):
                if went_back:
                    self._contradicted.append((head, problem))
                else:
                    self._problem(problem)
            self.found.heads += 1
            self.found.root, self._held = self._tree.root(), self._tree.size

    def _problem(self, text: str) -> None:
        if len(self.found.problems) < MOST_PROBLEMS:
            self.found.problems.append(text)

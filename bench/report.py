"""The outcome of one run: ratios beside their targets, as a table for people and as JSON for programs."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_LEVELS = ("no", "first", "goal")


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the targets: `first` and `goal` are limits of the same kind as what is reached."""

    name: str
    first: float
    goal: float
    unit: str = ""
    lower_is_better: bool = False

    def verdict(self, reached: float | None) -> str:
        """`goal`, `first` or `no`; `not measured` where there is no figure."""
        if reached is None:
            return "not measured"
        met = [
            reached <= limit if self.lower_is_better else reached >= limit
            for limit in (self.first, self.goal)
        ]
        return _LEVELS[sum(met)] if met[0] else _LEVELS[0]


TARGETS = {
    "new": Target("exchange on SQLite, all new ÷ the peer's exchange in memory", 0.4, 0.8),
    "reused": Target("exchange on SQLite, reused ÷ the peer's exchange", 0.6, 1.2),
    "postgresql": Target("exchange on PostgreSQL, reused ÷ the peer's exchange", 0.5, 1.2),
    "spread": Target("p99 ÷ p50 of an exchange at 8 clients (SQLite, reused)", 6, 3, lower_is_better=True),
    "introspection": Target("introspection ÷ the peer's", 0.35, 0.8),
    "redeem": Target("redeem ÷ exchange (SQLite, reused)", 1.0, 1.5),
    "workers": Target("two workers on two cores ÷ one worker (SQLite, 32 clients)", 1.5, 1.8),
    "hot": Target("one hot budget ÷ spread budgets, 32 clients, PostgreSQL", 0.3, 0.8),
    "delegations": Target("exchange with many delegations ÷ with 10³", 0.8, 0.95),
    "policy": Target(
        "policy decision with 100 policies, share of an exchange", 20, 10, " %", lower_is_better=True
    ),
    "memory": Target("memory of one worker", 150, 90, " MiB", lower_is_better=True),
    "start": Target("start to ready, schema current", 2.0, 0.8, " s", lower_is_better=True),
    "bytes": Target("bytes kept for each action, indices included", 1000, 500, lower_is_better=True),
    "bytes_redeemed": Target(
        "the same for each action that is also redeemed", 1000, 500, lower_is_better=True
    ),
    "kit_new": Target(
        "kit: offline check of a new token ÷ raw ES256 verification", 2.5, 1.6, lower_is_better=True
    ),
    "kit_seen": Target("kit: check of a token seen before", 30, 10, " µs", lower_is_better=True),
    "kit_revoked": Target(
        "kit: revocation answered → refused, the longest", 15, 1, " s", lower_is_better=True
    ),
}


@dataclass(slots=True)
class Report:
    """What a run found. `figures` are lines of (what, figure); `notes` say what was skipped or disturbed."""

    reached: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    figures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, figure: str) -> None:
        """Record a figure, and show it at once: a run takes minutes."""
        self.figures.append((what, figure))
        print(f"{what:58} {figure}", flush=True)

    def note(self, text: str) -> None:
        """Record something that a reader must know."""
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def markdown(self) -> str:
        """Both tables and the notes."""
        targets = [
            (
                target.name,
                f"{target.first:g}{target.unit}",
                f"{target.goal:g}{target.unit}",
                self._figure(key, target),
                target.verdict(self.reached.get(key)),
            )
            for key, target in TARGETS.items()
        ]
        lines = [
            *_table(("target", "first", "goal", "reached", "met"), targets),
            "",
            *_table(("what was measured", "figure"), self.figures),
        ]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)

    def _figure(self, key: str, target: Target) -> str:
        if key not in self.reached:
            return "–"
        remark = f" ({self.remarks[key]})" if key in self.remarks else ""
        return f"{self.reached[key]:.3g}{target.unit}{remark}"

    def to_json(self) -> str:
        """Everything, with the verdicts."""
        verdicts = {key: target.verdict(self.reached.get(key)) for key, target in TARGETS.items()}
        return json.dumps({**asdict(self), "met": verdicts}, indent=2, ensure_ascii=False)

    def write_readme(self) -> None:
        """Put the tables between the markers of bench/README.md."""
        text = README.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before}{BEGIN}\n{self.markdown()}\n{END}{after}", encoding="utf-8")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]

"""`python -m bench`: measure everything in one run, beside the machine's limits and the peer."""

import argparse
import contextlib
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import breakdown, crypto, databases, peer_server, robustness, servers, world
from bench.databases import Store
from bench.exchanges import HAS_TOKEN, IS_ACTIVE
from bench.load import Outcome, drive, median_of
from bench.processes import CORES, DidNotStart, Running, free_port, serving
from bench.report import Report
from bench.world import ROOT, World

_TRIVIAL = "bench.trivial:application"
_OURS = "authserver.wsgi:application"
# Above this share of the server's core for other programs, a figure says more about them.
_DISTURBED = 0.10


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `rounds` of `seconds` each; `distinct` exchanges that are each sent once."""

    seconds: float
    rounds: int
    distinct: int
    many_delegations: int


QUICK = Effort(seconds=2.0, rounds=1, distinct=4_000, many_delegations=0)
FULL = Effort(seconds=5.0, rounds=3, distinct=40_000, many_delegations=100_000)


class Run:
    """One run of the benchmark."""

    def __init__(self, effort: Effort, folder: Path) -> None:
        self.effort = effort
        self.folder = folder
        self.report = Report()
        self._peer_exchange: float | None = None
        self._peer_introspection: float | None = None

    def everything(self) -> None:
        """All parts, in the order in which they need each other."""
        self.machine()
        self.peer()
        with self._world("SQLite") as ours:
            if ours is not None:
                self.sqlite(ours)
        with self._world("PostgreSQL") as ours:
            if ours is not None:
                self.postgresql(ours)
        if self.effort.many_delegations:
            self.delegations()

    def machine(self) -> None:
        """The limits of the machine itself."""
        report = self.report
        report.add("machine", f"{platform.machine()}, {len(CORES)} cores, Python {platform.python_version()}")
        if len(CORES) == 1:
            report.note("one core only: the load generator shares it with the servers")
        ceiling = crypto.measure()
        report.add("ES256 raw: sign / verify", f"{ceiling.raw_sign:.0f} / {ceiling.raw_verify:.0f} µs")
        through = f"{ceiling.joserfc_sign:.0f} / {ceiling.joserfc_verify:.0f} µs"
        report.add("ES256 through joserfc: sign / verify", through)
        report.add(
            "limit: two verifications and a signature, nothing else", f"{ceiling.exchange_limit:.0f} /s"
        )
        report.add("limit: a signature alone, both tokens known", f"{ceiling.signing_limit:.0f} /s")

    def peer(self) -> None:
        """oidc-provider."""
        if why := peer_server.why_missing():
            self.report.note(f"the peer was skipped: {why}")
            return
        with peer_server.running(self.folder, min(self.effort.distinct, 10_000)) as peer:
            # The peer remembers no verification, so that it makes no difference to it whether tokens are new.
            exchange = self._measure(peer.server, "peer: exchange", peer.exchanges, HAS_TOKEN, warm_up=2.0)
            introspection = self._measure(peer.server, "peer: introspection", peer.introspections, IS_ACTIVE)
            self.report.add("peer: memory", _mebibytes(peer.server.worker_memory()))
        self._peer_exchange, self._peer_introspection = exchange.per_second, introspection.per_second

    def sqlite(self, ours: World) -> None:
        """The server as it comes: embedded SQLite."""
        reached = self.report.reached
        before = ours.store.size()
        reused = ours.reused_exchanges()
        with ours.serve() as server:
            reached["start"] = server.ready_after
            new = self._measure(
                server, "SQLite: exchange, all new", ours.new_exchanges(), HAS_TOKEN, again=False
            )
            again = self._measure(server, "SQLite: exchange, reused", reused, HAS_TOKEN)
            asked = self._measure(
                server, "SQLite: introspection", ours.introspections(reused[:100]), IS_ACTIVE
            )
            reached["memory"] = server.worker_memory() / 2**20
        reached["bytes"] = (ours.store.size() - before) / _actions(ours.store)
        reached["spread"] = again.spread
        self._against_peer("new", new, self._peer_exchange)
        self._against_peer("reused", again, self._peer_exchange)
        self._against_peer("introspection", asked, self._peer_introspection)
        self._parts(ours, "SQLite", again)
        self._candidates(ours)

    def postgresql(self, ours: World) -> None:
        """The same on PostgreSQL, which has the other core."""
        reused = ours.reused_exchanges()
        with ours.serve() as server:
            self._measure(
                server, "PostgreSQL: exchange, all new", ours.new_exchanges(), HAS_TOKEN, again=False
            )
            again = self._measure(server, "PostgreSQL: exchange, reused", reused, HAS_TOKEN)
        self._against_peer("postgresql", again, self._peer_exchange)
        self._parts(ours, "PostgreSQL", again)

    def delegations(self) -> None:
        """Whether an exchange costs more when there are many delegations."""
        few, many = (self._with_delegations(count) for count in (1_000, self.effort.many_delegations))
        self.report.reached["delegations"] = many.per_second / few.per_second if few.per_second else 0.0
        self.report.remarks["delegations"] = f"{self.effort.many_delegations:,} delegations"

    def wsgi_servers(self) -> None:
        """What remains of a request when the application does nothing, by server and setting; and who endures what."""
        request = form_alone()
        for candidate in servers.CANDIDATES:
            if candidate.missing:
                self.report.note(f"{candidate.name} was skipped: {candidate.program} is not installed")
                continue
            with self._trivial(candidate) as server:
                self._measure(server, f"nothing but a form: {candidate.name}", request, rb"access_token")
            for attack in robustness.ATTACKS:
                with self._trivial(candidate) as server:
                    endured = robustness.endure(server, attack, request, rb"access_token")
                self.report.add(f"{candidate.name}: {attack.connections} × {attack.name}", endured.in_words())

    @contextlib.contextmanager
    def _trivial(self, candidate: servers.Candidate) -> Iterator[Running]:
        port = free_port()
        with serving(
            "trivial", candidate.command(_TRIVIAL, port), port, self.folder, directory=ROOT
        ) as server:
            yield server

    @contextlib.contextmanager
    def _world(self, kind: str) -> Iterator[World | None]:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.folder))
        with contextlib.ExitStack() as stack:
            store: Store
            if kind == "SQLite":
                store = databases.sqlite(folder)
            elif why := databases.why_no_postgresql():
                self.report.note(f"PostgreSQL was skipped: {why}")
                yield None
                return
            else:
                store = stack.enter_context(databases.postgresql())
            try:
                yield world.build(folder, store, self.effort.distinct)
            except DidNotStart as error:
                self.report.note(f"{kind} was given up: the server did not start: {error}")

    def _with_delegations(self, count: int) -> Outcome:
        folder = Path(tempfile.mkdtemp(prefix="delegations-", dir=self.folder))
        ours = world.build(folder, databases.sqlite(folder), count)
        with ours.serve() as server:
            requests = ours.reused_exchanges(1_000)
            return self._measure(server, f"SQLite: exchange, {count:,} delegations", requests, HAS_TOKEN)

    def _candidates(self, ours: World) -> None:
        for candidate in (servers.granian(4), servers.gunicorn("gthread", "--threads", "4")):
            if candidate.missing:
                self.report.note(f"{candidate.name} was skipped: {candidate.program} is not installed")
                continue
            with ours.run(candidate.command(_OURS, ours.port), candidate.program) as server:
                name = f"SQLite: exchange, reused, under {candidate.name}"
                self._measure(server, name, ours.reused_exchanges(), HAS_TOKEN)

    def _parts(self, ours: World, kind: str, exchange: Outcome) -> None:
        parts = breakdown.of_exchange(ours, ours.reused_exchanges(), 300 if self.effort is QUICK else 2_000)
        application = parts.pop("application")
        shares = ", ".join(f"{part} {cpu:.0f}" for part, cpu in parts.items())
        figure = f"{application:.0f} µs = {shares} (shares by cProfile)"
        self.report.add(f"{kind}: CPU of an exchange in the application", figure)
        server = max(0.0, exchange.cpu_each - application)
        self.report.add(f"{kind}: CPU of an exchange in the server process beside it", f"{server:.0f} µs")
        self.report.reached["policy"] = 100 * parts.get("policy", 0.0) / max(exchange.cpu_each, application)

    def _measure(
        self,
        server: Running,
        name: str,
        requests: tuple[bytes, ...],
        expected: bytes,
        *,
        again: bool = True,
        warm_up: float = 0.5,
    ) -> Outcome:
        rounds = self.effort.rounds
        share = len(requests) if again else len(requests) // rounds
        outcomes = [
            drive(
                server,
                requests if again else requests[turn * share : (turn + 1) * share],
                expected,
                seconds=self.effort.seconds,
                again=again,
                warm_up=warm_up if turn == 0 else 0.3,
            )
            for turn in range(rounds)
        ]
        middle = median_of(outcomes)
        self.report.add(name, _in_words(middle))
        if middle.errors:
            self.report.note(f"{name}: {middle.errors} errors, the first: {middle.first_error[:200]}")
        if middle.foreign_cpu > _DISTURBED:
            self.report.note(f"{name}: other programs took {middle.foreign_cpu:.0%} of the server's core")
        if middle.generator_cpu > 0.7:
            self.report.note(
                f"{name}: the load generator was busy for {middle.generator_cpu:.0%} of its core"
            )
        if middle.ran_out:
            self.report.note(f"{name}: all prepared requests were sent before the time was over")
        return middle

    def _against_peer(self, key: str, outcome: Outcome, peer: float | None) -> None:
        if peer:
            self.report.reached[key] = outcome.per_second / peer


def form_alone() -> tuple[bytes, ...]:
    """An exchange's form for an application that does not look at it."""
    from bench.exchanges import exchange_request

    return (exchange_request("x" * 1_100, "y" * 500),)


def _in_words(outcome: Outcome) -> str:
    return (
        f"{outcome.per_second:,.0f} /s, p50 {outcome.p50:.2f} ms, p99 {outcome.p99:.2f} ms (×{outcome.spread:.1f}), "
        f"{outcome.cpu_each:.0f} µs CPU, generator {outcome.generator_cpu:.0%}"
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _actions(store: Store) -> int:
    import sqlite3

    with contextlib.closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as connection:
        (count,) = connection.execute("SELECT count(*) FROM actions").fetchone()
    return max(1, int(count))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each measurement")
    parser.add_argument(
        "--servers", action="store_true", help="compare WSGI servers and what each endures, only"
    )
    parser.add_argument(
        "--many", type=int, metavar="N", help="delegations to compare with 1,000 (default 100,000)"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    if arguments.many:
        effort = Effort(effort.seconds, effort.rounds, effort.distinct, arguments.many)
    # Not in memory: what is durable here must reach a disk.
    with tempfile.TemporaryDirectory(
        prefix="authserver-bench-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as folder:
        Path(folder).chmod(0o755)
        run = Run(effort, Path(folder))
        run.wsgi_servers() if arguments.servers else run.everything()
    print("\n" + run.report.markdown())
    if arguments.write:
        run.report.write_readme()
    if arguments.json:
        arguments.json.write_text(run.report.to_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

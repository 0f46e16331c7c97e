"""`python -m bench`: measure everything in one run, beside the machine's limits and the peer."""

import argparse
import contextlib
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from authserver.dpop import ProofKey
from bench import breakdown, crypto, databases, expiry, kit, peer_server, policies, robustness, servers, world
from bench.databases import Store
from bench.exchanges import HAS_TOKEN, IS_ACTIVE, IS_CAPTURED
from bench.load import Outcome, drive, median_of
from bench.processes import CORES, DidNotStart, Running, free_port, serving
from bench.report import Report
from bench.world import AGENTS, ROOT, World

_TRIVIAL = "bench.trivial:application"
_OURS = "authserver.wsgi:application"
# Above this share of the server's core for other programs, a figure says more about them.
_DISTURBED = 0.10
# Below the reservations that one delegation may hold open by default, with what it held before.
_MOST_OPEN = 20_000
_REVOCATIONS = 20


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `rounds` of `seconds` each; `distinct` exchanges that are each sent once.

    `redemptions` are prepared for each round. With no `expired` reservations, the longer comparisons are left out.
    """

    seconds: float
    rounds: int
    distinct: int
    many_delegations: int
    redemptions: int
    expired: int


QUICK = Effort(seconds=2.0, rounds=1, distinct=4_000, many_delegations=0, redemptions=1_000, expired=0)
FULL = Effort(
    seconds=5.0, rounds=3, distinct=40_000, many_delegations=10_000, redemptions=4_000, expired=100_000
)


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
        self.chains()
        if self.effort.expired:
            self.expiry()

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
            self._kit(ours, reused)
            reached["memory"] = server.worker_memory() / 2**20
        reached["bytes"] = (ours.store.size() - before) / _actions(ours.store)
        reached["spread"] = again.spread
        self._against_peer("new", new, self._peer_exchange)
        self._against_peer("reused", again, self._peer_exchange)
        self._against_peer("introspection", asked, self._peer_introspection)
        self._parts(ours, "SQLite", again)
        self._redeem(ours, again)
        if self.effort.rounds > 1:
            self._workers(ours)
        self._candidates(ours)

    def postgresql(self, ours: World) -> None:
        """The same on PostgreSQL, which has the other core."""
        reused = ours.reused_exchanges()
        with ours.serve() as server:
            self._measure(
                server, "PostgreSQL: exchange, all new", ours.new_exchanges(), HAS_TOKEN, again=False
            )
            again = self._measure(server, "PostgreSQL: exchange, reused", reused, HAS_TOKEN)
            if self.effort.rounds > 1:
                self._hot_budget(ours, server)
        self._against_peer("postgresql", again, self._peer_exchange)
        self._parts(ours, "PostgreSQL", again)

    def delegations(self) -> None:
        """Whether an exchange costs more when there are many delegations."""
        few, many = (self._with_delegations(count) for count in (1_000, self.effort.many_delegations))
        self.report.reached["delegations"] = many.per_second / few.per_second if few.per_second else 0.0
        self.report.remarks["delegations"] = f"{self.effort.many_delegations:,} delegations"

    def chains(self) -> None:
        """What an exchange costs when its delegation was handed on: every budget of the chain is held."""
        for depth in (1, 3, 8):
            folder = Path(tempfile.mkdtemp(prefix=f"chain-{depth}-", dir=self.folder))
            ours = world.build(folder, databases.sqlite(folder), 200, depth)
            with ours.serve() as server:
                name = f"SQLite: exchange, chain of {depth}"
                self._measure(server, name, ours.reused_exchanges(), HAS_TOKEN)

    def expiry(self) -> None:
        """How long the upkeep takes to release a great many reservations at once."""
        folder = Path(tempfile.mkdtemp(prefix="expiry-", dir=self.folder))
        released = expiry.measure(world.build(folder, databases.sqlite(folder), 200), self.effort.expired)
        each = released.count / released.seconds
        figure = f"{released.seconds:.1f} s for {released.count:,}, {each:,.0f} /s"
        self.report.add("SQLite: release of expired reservations", figure)

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

    def _redeem(self, ours: World, exchange: Outcome) -> None:
        reached, count = self.report.reached, self.effort.redemptions
        before, had = ours.store.size(), _actions(ours.store)
        exchanges = list(islice(cycle(ours.reused_exchanges()), count))
        with ours.serve() as server:
            # In rounds, each with tokens of its own, because they live for two minutes only.
            rounds = [self._redeem_once(ours, server, exchanges) for _ in range(self.effort.rounds)]
        outcome = self._told("SQLite: redeem", median_of(rounds), prepared=True)
        reached["redeem"] = outcome.per_second / exchange.per_second if exchange.per_second else 0.0
        reached["bytes_redeemed"] = (ours.store.size() - before) / max(1, _actions(ours.store) - had)

    def _redeem_once(self, ours: World, server: Running, exchanges: list[bytes]) -> Outcome:
        redemptions = ours.redemptions(exchanges)
        return drive(server, redemptions, IS_CAPTURED, seconds=60, warm_up=0.3, again=False, status=b"201")

    def _kit(self, ours: World, exchanges: tuple[bytes, ...]) -> None:
        report, key = self.report, ProofKey.generate()
        some = list(islice(cycle(exchanges), 501))
        checked = kit.measure(ours.issuer, ours.tokens(some), ours.bound_tokens(some[1:], key), key)
        figure = f"{checked.new:.0f} / {checked.seen:.1f} / {checked.raw:.0f} µs"
        report.add("kit: check of a new token / one seen before / raw ES256 verification", figure)
        figure = f"{checked.new_with_proof:.0f} / {checked.seen_with_proof:.0f} µs"
        report.add("kit: the same with a DPoP proof, new / seen before", figure)
        report.add("PyJWT: signature, issuer, audience, expiry of a token", f"{checked.pyjwt:.0f} µs")
        report.add("kit: first token of a new process, with all that is fetched", f"{checked.first:.0f} ms")
        report.reached["kit_new"] = checked.new / checked.raw
        report.reached["kit_seen"] = checked.seen
        self._revocations(ours, exchanges)

    def _revocations(self, ours: World, exchanges: tuple[bytes, ...]) -> None:
        # The agents present their grants in turn, so a request's place says whose it is.
        tokens = ours.tokens(exchanges[:_REVOCATIONS])
        agents = {token: place % AGENTS for place, token in enumerate(tokens)}
        revoked = kit.until_refused(ours.issuer, tokens, lambda token: ours.revoke(token, agents[token]))
        figure = f"{revoked.median * 1e3:.0f} / {revoked.longest * 1e3:.0f} ms"
        self.report.add(f"kit: revocation answered → refused, median / longest of {len(tokens)}", figure)
        self.report.reached["kit_revoked"] = revoked.longest

    def _workers(self, ours: World) -> None:
        if len(CORES) < 2:
            self.report.note("two workers were skipped: there is one core only")
            return
        one, two = (self._with_workers(ours, count) for count in (1, 2))
        self.report.reached["workers"] = two / one if one else 0.0
        self.report.note(
            "two workers: the load generator has no core of its own, it shares the last one with the servers; "
            "on more cores the ratio is higher"
        )

    def _with_workers(self, ours: World, count: int) -> float:
        requests = ours.reused_exchanges()
        with ours.serve("--workers", str(count), cores=(CORES[0], CORES[-1])) as server:
            rounds = [
                drive(server, requests, HAS_TOKEN, seconds=self.effort.seconds, connections=32)
                for _ in range(self.effort.rounds)
            ]
        middle = sorted(rounds, key=lambda outcome: outcome.by_the_clock)[len(rounds) // 2]
        errors = sum(outcome.errors for outcome in rounds)
        name = f"SQLite: exchange, {count} worker{'s' * (count > 1)} on two cores, 32 clients"
        figure = f"{middle.by_the_clock:,.0f} /s, p50 {middle.p50:.2f} ms, p99 {middle.p99:.2f} ms, {errors} errors"
        self.report.add(name, figure)
        return middle.by_the_clock

    def _hot_budget(self, ours: World, server: Running) -> None:
        requests, rounds = ours.reused_exchanges(), self.effort.rounds
        # A budget of its own for each round: what one delegation may hold open at once is limited.
        hot = tuple(request for request in requests[:rounds] for _ in range(_MOST_OPEN))
        name = "PostgreSQL: exchange, 32 clients"
        one = self._measure(server, f"{name}, one budget", hot, HAS_TOKEN, again=False, connections=32)
        spread = self._measure(server, f"{name}, spread budgets", requests, HAS_TOKEN, connections=32)
        self.report.reached["hot"] = one.per_second / spread.per_second if spread.per_second else 0.0

    def _candidates(self, ours: World) -> None:
        for candidate in (servers.granian(4), servers.gunicorn("gthread", "--threads", "4")):
            if candidate.missing:
                self.report.note(f"{candidate.name} was skipped: {candidate.program} is not installed")
                continue
            with ours.run(candidate.command(_OURS, ours.port), candidate.program) as server:
                name = f"SQLite: exchange, reused, under {candidate.name}"
                self._measure(server, name, ours.reused_exchanges(), HAS_TOKEN)

    def _parts(self, ours: World, kind: str, exchange: Outcome) -> None:
        parts = breakdown.of_exchange(
            ours, ours.reused_exchanges(), 300 if self.effort.rounds == 1 else 2_000
        )
        application = parts.pop("application")
        shares = ", ".join(f"{part} {cpu:.0f}" for part, cpu in parts.items())
        figure = f"{application:.0f} µs = {shares} (shares by cProfile)"
        self.report.add(f"{kind}: CPU of an exchange in the application", figure)
        server = max(0.0, exchange.cpu_each - application)
        self.report.add(f"{kind}: CPU of an exchange in the server process beside it", f"{server:.0f} µs")
        self._policies(parts.get("policy", 0.0), max(exchange.cpu_each, application))

    def _policies(self, delegation: float, exchange: float) -> None:
        """Their share of an exchange: `delegation` and `exchange` are µs of CPU, with the shipped policies."""
        measured = policies.measure()

        def share(cpu: float) -> float:
            return 100 * (delegation + cpu) / (exchange + cpu)

        self.report.reached["policy"] = share(measured.in_turn[100])
        for name, found in (
            ("in turn for each action", measured.in_turn),
            ("for one action", measured.all_for_one),
        ):
            told = ", ".join(f"{n:,}: {cpu:.0f} µs ({share(cpu):.1f}%)" for n, cpu in found.items())
            self.report.add(f"policies {name}: CPU of a decision (share of the exchange)", told)
        told = ", ".join(f"{depth}: {cpu:.0f} µs" for depth, cpu in measured.delegation.items())
        self.report.add("delegations of a chain: CPU of a decision", told)
        told = ", ".join(f"{n:,}: {cpu:.0f} ms" for n, cpu in measured.load.items())
        self.report.add("policies: CPU to read, check and prepare them", told)

    def _measure(
        self,
        server: Running,
        name: str,
        requests: tuple[bytes, ...],
        expected: bytes,
        *,
        again: bool = True,
        warm_up: float = 0.5,
        connections: int = 8,
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
                connections=connections,
                warm_up=warm_up if turn == 0 else 0.3,
            )
            for turn in range(rounds)
        ]
        return self._told(name, median_of(outcomes))

    def _told(self, name: str, middle: Outcome, *, prepared: bool = False) -> Outcome:
        """Put it into the report, with what a reader must know; of `prepared` requests all were to be sent."""
        self.report.add(name, _in_words(middle))
        if middle.errors:
            self.report.note(f"{name}: {middle.errors} errors, the first: {middle.first_error[:200]}")
        if middle.foreign_cpu > _DISTURBED:
            self.report.note(f"{name}: other programs took {middle.foreign_cpu:.0%} of the server's core")
        if middle.generator_cpu > 0.7:
            self.report.note(
                f"{name}: the load generator was busy for {middle.generator_cpu:.0%} of its core"
            )
        if middle.ran_out and not prepared:
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
        "--many", type=int, metavar="N", help="delegations to compare with 1,000 (default 10,000)"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    if arguments.many:
        effort = replace(effort, many_delegations=arguments.many)
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

"""Threats A121-A125: logs, secrets, SQL, load and start-up; against the program itself where that matters."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import text

from authserver import jose, revoke
from authserver.actors.client_authentication import JWT_SPIFFE
from authserver.consent import Granted
from authserver.revoke import Target, UnknownTarget
from authserver.schema import Base, Delegation
from examples.processes import free_port
from tests.attacks.making import change, dpop_proof, foreign_key, grant_for, named, sizes
from tests.attacks.serving import ROOT, SERVE, Served, configuration, serving
from tests.world import BASKET_HELPER, MARKET, MERCHANT, PRICE_SCOUT, World, running_world

SCOPE = {"authorization_details": None, "scope": "catalog.search", "resource": MARKET}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# --- A121: log injection --------------------------------------------------------------------------------------------

HOSTILE = {
    "line_end": 'x\n{"event": "forged"}',
    "carriage_return": "x\rforged",
    "crlf": "x\r\nforged",
    "escape": "x\x1b[2J\x1b[31mforged",
    "c1_escape": "x\x9b31mforged",
    "next_line": "x\x85forged",
    "line_separator": "x\u2028forged",
    "right_to_left": "x\u202edegrof",
    "zero_width": "for\u200bged",
    "nul": "x\x00forged",
    "backspace": "x\x08\x08forged",
    "surrogate": "x\ud800forged",
    "quotes": 'x", "level": "forged',
}

_LOG_THEM = """
import json, sys
import structlog
from authserver.logs import configure_logging
configure_logging("info", sys.argv[1])
log = structlog.get_logger()
for value in json.load(sys.stdin):
    log.error("request.failed", path=value, several=[value], named={value: value})
    try:
        raise ValueError(value)
    except ValueError as error:
        log.error("request.failed", error=str(error), exc_info=error)
"""


def _is_plain(output: str) -> bool:
    return all(0x20 <= ord(character) < 0x7F for character in output.replace("\n", ""))


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_A121_a_logged_value_stays_on_its_line(log_format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOG_THEM, log_format],
        input=json.dumps(list(HOSTILE.values())),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert _is_plain(done.stderr)
    if log_format == "console":
        # A traceback stands below its event, on one line.
        beginnings = ("request.failed", "request.failed", "Traceback (most recent call last):\\n")
        assert all(words in line for line, words in zip(lines, beginnings * len(HOSTILE), strict=True))
    else:
        assert len(lines) == 2 * len(HOSTILE)
        events = [json.loads(line) for line in lines]
        assert {event["event"] for event in events} == {"request.failed"}
        assert [event["path"] for event in events[::2]] == list(HOSTILE.values())


@pytest.fixture(scope="module")
def program(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The program, serving what the shared world serves, with a log of everything."""
    with serving(configuration(shared_world, tmp_path_factory.mktemp("program"))) as served:
        yield served


def _hostile_requests(world: World, value: str) -> Iterator[tuple[dict[str, Any], dict[bytes, bytes]]]:
    """(form, headers) with the value in every place where a client can put one."""
    plain, good = value.encode("utf-8", "replace"), world.form(world.granted().grant)
    for name in (*good, "client_id", "scope", "resource", "audience", "task_id", "completion_mode", value):
        yield good | {name: plain.decode()}, {}
    for member in ("id", "name", "category", "country"):
        action = world.action(merchant=MERCHANT | {member: value})
        yield good | {"authorization_details": json.dumps([action])}, {}
    yield good | {"authorization_details": json.dumps([world.action() | {value: value}])}, {}
    key = world.domain_key()
    claims = dict(jose.read_compact(world.assertion()).claims)
    for name in ("sub", "iss", "aud", "jti", value):
        yield good | {"actor_token": jose.sign(claims | {name: value}, key=key, typ="JWT")}, {}
    for kid in (value, value * 40):
        forged = jose.sign(claims, key=jose.SigningKey(kid, key.key), typ="JWT")
        yield good | {"actor_token": forged, "subject_token": forged}, {}
    one_line = plain.replace(b"\r", b"").replace(b"\n", b"").replace(b"\x00", b"")
    for header in (b"Idempotency-Key", b"DPoP", b"User-Agent", b"X-Forwarded-For"):
        yield good, {header: one_line}
    yield good, {b"Authorization": b"Basic " + base64.b64encode(plain + b":" + plain)}


def test_A121_no_request_writes_a_line_of_its_own(shared_world: World, program: Served) -> None:
    with httpx.Client(base_url=program.url, timeout=30) as client:
        for value in HOSTILE.values():
            value = value.encode("utf-8", "replace").decode()
            for form, headers in _hostile_requests(shared_world, value):
                assert client.post("/oauth/token", data=form, headers=headers).status_code < 500
            client.get("/oauth/" + quote(value, safe=""))
            client.post(f"/oauth/redemptions/{quote(value, safe='')}/void")
    written = program.log.read_text(errors="surrogateescape")
    assert _is_plain(written)
    assert all(isinstance(json.loads(line), dict) for line in written.splitlines())
    assert '"event": "forged"' not in written


def test_A121_a_key_set_writes_no_line_of_its_own(shared_world: World, program: Served) -> None:
    readable = HOSTILE.keys() - {"nul", "surrogate"}  # which would make the whole set unreadable
    jwks = shared_world.domain / "jwks.json"
    before = jwks.read_text()
    keys = json.loads(before)["keys"]
    try:
        hostile = [{"kty": "oct", "k": "AA", "kid": HOSTILE[name]} for name in readable]
        jwks.write_text(json.dumps({"keys": [*keys, *hostile]}))
        os.utime(jwks, (time.time() + 60, time.time() + 60))
        answer = httpx.post(f"{program.url}/oauth/token", data=shared_world.form("x"), timeout=30)
        assert answer.status_code == 400
    finally:
        jwks.write_text(before)
    written = program.log.read_text(errors="surrogateescape")
    assert written.count("jwks.key_ignored") == len(readable)
    assert _is_plain(written)


def test_A121_the_exported_audit_is_one_plain_line_an_event(shared_world: World, program: Served) -> None:
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(program.log.parent / "authserver.toml")}
    command = [sys.executable, "manage.py", "audit", "export"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert _is_plain(done.stdout)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(shared_world.events())


# --- A122: secrets in what is written -------------------------------------------------------------------------------


class Secrets:
    """Everything that must be found nowhere: tokens as a whole and their signatures, secrets, keys."""

    def __init__(self, world: World) -> None:
        self.world, self._needles = world, dict[str, str]()
        self.add("market_secret", world.market_secret)
        self.add("shop_secret", world.shop_secret)
        self.add("encryption_key", world.services.settings.keys.encryption_key_file.read_text().strip())
        for name, key in (("domain", world.domain_key()), ("signing", world.services.signing_keys.active())):
            private = key.key.as_dict(private=True)
            self.add(f"{name}_key", str(private["d"]))
            pem = key.key.as_pem(private=True).decode().splitlines()
            self.add(f"{name}_pem", pem[1])

    def add(self, name: str, secret: str) -> str:
        """Remember a secret; of a token its last part, without which it is worth nothing, as well."""
        self._needles[name] = secret
        if secret.count(".") == 2:
            signature = secret.rpartition(".")[2]
            self._needles |= {f"begin of {name}": signature[:32], f"end of {name}": signature[-32:]}
        return secret

    def absent_from(self, where: str, haystack: str | bytes) -> None:
        """Fails with the names of the secrets that were found."""
        content = haystack.encode() if isinstance(haystack, str) else haystack
        found = [name for name, needle in self._needles.items() if needle.encode() in content]
        assert not found, f"{where}: {found}"


def _all_rows(world: World) -> bytes:
    """Every value of every table, one after another."""
    pieces = []

    def read(connection: Any) -> None:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(text(f"SELECT * FROM {table.name}")):
                pieces.extend(value if isinstance(value, bytes) else str(value).encode() for value in row)

    world.services.database.read(read)
    return b"\n".join(pieces)


class Talker:
    """A client of the program that remembers what is secret about each request and keeps each answer."""

    def __init__(self, client: httpx.Client, secret: Secrets) -> None:
        self.client, self.secret, self.answers = client, secret, list[httpx.Response]()

    def send(self, name: str, path: str, form: dict[str, str], **more: Any) -> str:
        """Send a form; gives the token in the answer, if there is one."""
        for parameter, value in form.items():
            if parameter.endswith(("token", "assertion")):
                self.secret.add(f"{parameter} of {name}", value)
        answer = self.client.post(path, data=form, **more)
        token: str = answer.json().get("access_token", "")
        if token:
            self.secret.add(f"action token of {name}", token)
        else:
            self.answers.append(answer)
        return token


def _good_and_bad(world: World, granted: Granted, talker: Talker) -> None:
    """Exchanges and all that follows, as they should be and as they should not."""
    grant, proof = granted.grant, dpop_proof(world, ECKey.generate_key("P-256"))
    market = (world.market_id, world.market_secret)
    own = {"client_assertion": world.assertion(), "client_assertion_type": JWT_SPIFFE}

    def ask(name: str, subject: str = grant, headers: Any = None, auth: Any = None, **changes: Any) -> str:
        form = world.form(subject, **changes)
        return talker.send(name, "/oauth/token", form, headers=headers, auth=auth)

    token = ask("a payment")
    assert token
    assert ask("a retry", headers={"Idempotency-Key": "one"})
    assert ask("a proof", headers={"DPoP": talker.secret.add("the proof", proof)})
    assert ask("a client assertion", **own)
    ask("the proof again", headers={"DPoP": proof})
    ask("too much", action=world.action(amount={"currency": "EUR", "value": "80.01"}))
    ask("another agent", actor_token=world.assertion(PRICE_SCOUT))
    ask("an unknown agent", actor_token=world.assertion("spiffe://example.org/agent/nobody"))
    ask("a forged grant", grant_for(world, granted.grant_id, key=foreign_key()))
    ask("an action token as grant", token)
    ask("swapped", world.assertion(), actor_token=grant)
    ask("a secret", auth=market)
    for parameter in (
        "client_id",
        "resource",
        "audience",
        "task_id",
        "requested_token_type",
        "completion_mode",
    ):
        ask(f"the grant as {parameter}", **{parameter: grant})
    ask("the grant as scope", authorization_details=None, scope=grant)
    ask("the grant as details", authorization_details=json.dumps([world.action(reference=grant)]))
    ask("the grant as a key", headers={"Idempotency-Key": grant})
    ask("the grant as a proof", headers={"DPoP": grant})
    ask("the grant as authorization", headers={"Authorization": f"Bearer {grant}"})
    talker.send("a check", "/oauth/introspect", {"token": token}, auth=market)
    talker.send("a check of a grant", "/oauth/introspect", {"token": grant}, auth=market)
    talker.send("a wrong secret", "/oauth/introspect", {"token": token}, auth=(market[0], world.shop_secret))
    talker.send("a broken form", "/oauth/token", {"actor_token": world.assertion(), "x": "\x00"})
    talker.send("the end", "/oauth/revoke", {"token": token, **own})
    talker.answers += [
        talker.client.post("/oauth/token", json=world.form(grant)),
        talker.client.post("/oauth/token", params=world.form(grant)),
        talker.client.get(f"/oauth/{token}"),
        talker.client.post("/oauth/redeem", auth=market, json={"token": token}),
    ]


def _when_the_server_fails(world: World, granted: Granted, talker: Talker) -> None:
    """Exchanges that meet a row that cannot be read, and a table that is not there."""
    row = {"id": granted.grant_id}
    change(world, Delegation, row, details="{")
    talker.send("a broken row", "/oauth/token", world.form(granted.grant))
    assert talker.answers[-1].status_code == 500
    change(world, Delegation, row, details=world.services.stored.write(granted.details))
    world.services.database.write(lambda connection: connection.execute(text("DROP TABLE actions")))
    talker.send("a missing table", "/oauth/token", world.form(granted.grant))
    assert talker.answers[-1].status_code == 503


def _printed(configured: Path) -> Iterator[str]:
    """What the verbs that show records print."""
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(configured)}
    for verb in ("audit export", "keys list --json", "delegations list --json"):
        command = [sys.executable, "manage.py", *verb.split()]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        yield done.stdout + done.stderr


def test_A122_no_secret_reaches_a_row_a_log_or_an_error(world: World, tmp_path: Path) -> None:
    secret, granted, configured = Secrets(world), world.granted(), configuration(world, tmp_path)
    secret.add("the grant", granted.grant)
    with serving(configured) as served, httpx.Client(base_url=served.url, timeout=30) as client:
        talker = Talker(client, secret)
        _good_and_bad(world, granted, talker)
        secret.absent_from("the rows", _all_rows(world))
        if world.services.database.is_sqlite:
            for file in tmp_path.glob("authserver.db*"):
                secret.absent_from(file.name, file.read_bytes())
            for printed in _printed(configured):
                secret.absent_from("what a verb prints", printed)
        _when_the_server_fails(world, granted, talker)
    written = served.log.read_text()
    assert "request.failed" in written
    assert "database.failed" in written
    secret.absent_from("the log", written)
    for answer in talker.answers:
        secret.absent_from(f"the answer {answer.status_code} to {answer.request.url.path}", answer.text)
        secret.absent_from("its headers", str(answer.headers))


def test_A122_a_scan_finds_what_it_looks_for(sqlite_world: World) -> None:
    secret = Secrets(sqlite_world)
    grant = secret.add("the grant", sqlite_world.granted().grant)
    for leak in (f"token={grant}", grant[-40:], sqlite_world.market_secret):
        with pytest.raises(AssertionError):
            secret.absent_from("a leak", leak)


def test_A122_what_holds_a_secret_does_not_show_it(sqlite_world: World) -> None:
    secret, granted = Secrets(sqlite_world), sqlite_world.granted()
    secret.add("the grant", granted.grant)
    services = sqlite_world.services
    for holder in (
        granted,
        services.settings,
        services.signing_keys.active(),
        services,
        sqlite_world.domain_key(),
    ):
        secret.absent_from(f"repr of {type(holder).__name__}", repr(holder))


# --- A123: SQL in strings -------------------------------------------------------------------------------------------

SQL = {
    "drop": "'; DROP TABLE actions; --",
    "or": "' OR '1'='1",
    "union": "x' UNION SELECT secret_hash FROM resource_servers --",
    "double_quote": 'x" OR ""="',
    "like": "%",
    "one_character": "basket_helper'",
    "backslash": "\\' OR 1=1 --",
    "placeholder": "%(client_id)s :delegation ? $1 {0}",
    "comment": "x/*",
    "dollar_quote": "$$; DROP TABLE actions; $$",
}


def _places(world: World, value: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every string of a request that could reach a statement, with that value in it."""
    key, claims = world.domain_key(), dict(jose.read_compact(world.assertion()).claims)

    def assertion(**changes: object) -> dict[str, str]:
        return {"actor_token": jose.sign(claims | changes, key=key, typ="JWT")}

    for name in (
        "client_id",
        "resource",
        "audience",
        "task_id",
        "grant_type",
        "subject_token",
        "actor_token",
    ):
        yield name, {name: value}
    yield "scope", {"scope": value, "authorization_details": None}
    yield "location", {"action": world.action(locations=[value])}
    yield "reference", {"action": world.action(reference=value)}
    yield "merchant_id", {"action": world.action(merchant=MERCHANT | {"id": value})}
    yield "action", {"action": world.action(actions=[value])}
    yield "subject", assertion(sub=value)
    yield "subject_below", assertion(sub=f"{BASKET_HELPER}{value}")
    yield "issuer", assertion(iss=value, sub=value)
    yield "client_assertion", {"client_assertion": value, "client_assertion_type": JWT_SPIFFE}


@pytest.mark.parametrize("value", named(SQL))
def test_A123_sql_in_a_string_is_only_a_string(either_world: World, value: str) -> None:
    granted, places = either_world.granted(), list(_places(either_world, value))
    assert either_world.exchange(granted.grant).status_code == 200
    before = sizes(either_world)
    for _, changes in places:
        answer = either_world.exchange(granted.grant, **changes)
        assert answer.status_code in (400, 401), answer.text
    forged = grant_for(either_world, granted.grant_id, jti=value)
    assert either_world.exchange(forged).status_code == 400
    after = sizes(either_world)
    assert after == before | {"audit_events": before["audit_events"] + len(places) + 1}


@pytest.mark.parametrize("value", named(SQL))
def test_A123_sql_where_any_text_may_stand_comes_back_as_it_was(either_world: World, value: str) -> None:
    granted = either_world.granted()
    action = either_world.action(merchant=MERCHANT | {"name": value})
    key = {"Idempotency-Key": value.replace(" ", "+")}
    actor = either_world.assertion(jti=value)
    answer = either_world.exchange(granted.grant, action=action, headers=key, actor_token=actor)
    assert answer.status_code == 200, answer.text
    assert answer.json()["authorization_details"] == [action]
    assert either_world.introspect(answer.json()["access_token"])["authorization_details"] == [action]
    again = either_world.exchange(granted.grant, action=action, headers=key)
    assert again.json()["action_id"] == answer.json()["action_id"]
    other = {"Idempotency-Key": key["Idempotency-Key"] + "_"}
    assert (
        either_world.exchange(granted.grant, action=action, headers=other).json()["action_id"]
        != again.json()["action_id"]
    )


@pytest.mark.parametrize("value", named(SQL))
def test_A123_a_name_with_sql_authenticates_nobody(shared_world: World, value: str) -> None:
    for name, secret in (
        (value, value),
        (shared_world.market_id, value),
        (value, shared_world.market_secret),
    ):
        answer = shared_world.client.post(
            "/oauth/introspect", data={"token": "x"}, auth=(quote(name, safe=""), quote(secret, safe=""))
        )
        shared_world.refuses(answer, "invalid_client", status=401)


PATTERNS = {
    "agent": ("agent", "basket%"),
    "agent_by_one_character": ("agent", "basket_helper"),
    "any_agent": ("agent", "%"),
    "any_delegation": ("delegation", "%"),
    "any_user": ("user", "%"),
    "empty_agent": ("agent", ""),
}


@pytest.mark.parametrize("target", named(PATTERNS))
def test_A123_a_pattern_revokes_nothing(either_world: World, target: tuple[Any, str]) -> None:
    granted, now = either_world.granted(), either_world.clock.now()
    with pytest.raises(UnknownTarget):
        revoke.revoke(either_world.services, Target(*target), reason="%", by="operator", now=now)
    assert either_world.exchange(granted.grant).status_code == 200


@pytest.mark.parametrize(
    ("parameter", "pattern"),
    [
        ("resource", "https://market.example/%"),
        ("resource", "https://market_example/api"),
        ("audience", "rs_marke_"),
        ("audience", "RS_MARKET"),
        ("client_id", "basket-helpe_"),
        ("client_id", "Basket-Helper"),
    ],
)
def test_A123_a_pattern_names_nothing(either_world: World, parameter: str, pattern: str) -> None:
    granted, action = either_world.granted(), either_world.action(locations=None)
    target = {} if parameter != "client_id" else {"resource": MARKET}
    with either_world.nothing_happens():
        answer = either_world.exchange(granted.grant, action=action, **target, **{parameter: pattern})
        either_world.refuses(answer, "invalid_request" if target else "invalid_target")


@pytest.mark.parametrize(
    "subject", ["spiffe://example.org/agent/basket_helper", "spiffe://example.org/agent/Basket-Helper"]
)
def test_A123_a_pattern_is_no_workload(either_world: World, subject: str) -> None:
    granted = either_world.granted()
    with either_world.nothing_happens("actor.unknown_agent"):
        answer = either_world.exchange(granted.grant, actor_token=either_world.assertion(subject))
        either_world.refuses(answer, "invalid_request")


# --- A124: load ------------------------------------------------------------------------------------------------------

_HEAD = (
    b"POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
)
HELD = {
    "slow_headers": (100, _HEAD, b"X"),
    "slow_bodies": (100, _HEAD + b"Content-Length: 2500\r\n\r\nsubject_token=", b"a"),
    "slow_lines": (50, b"POST", b"x"),
    "idle": (500, b"", b""),
}


class _Held:
    """Connections that a client keeps open with as little as it can send."""

    def __init__(self, port: int, many: int, opening: bytes, drip: bytes) -> None:
        self.drip, self.closed = drip, 0
        self.open = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(many)]
        for connection in self.open:
            connection.sendall(opening)
            connection.setblocking(False)

    def hold_on(self) -> None:
        """Send a byte on each, and let go of those that the server has closed."""
        for connection in list(self.open):
            try:
                if self.drip:
                    connection.send(self.drip)
                ended = connection.recv(65_536) == b""
            except BlockingIOError:
                continue
            except OSError:
                ended = True
            if ended:
                connection.close()
                self.open.remove(connection)

    def let_go(self) -> None:
        """Close what is still open."""
        for connection in self.open:
            connection.close()


def _serves(world: World, grant: str, client: httpx.Client, many: int) -> float:
    """The longest that one of so many honest exchanges took."""
    longest = 0.0
    for _ in range(many):
        began = time.monotonic()
        assert client.post("/oauth/token", data=world.form(grant, **SCOPE)).status_code == 200
        longest = max(longest, time.monotonic() - began)
    return longest


def test_A124_who_holds_connections_holds_up_nobody_and_not_for_long(
    shared_world: World, shared_grant: str, program: Served
) -> None:
    began = time.monotonic()
    held = {name: _Held(program.port, *how) for name, how in HELD.items()}
    try:
        with httpx.Client(base_url=program.url, timeout=30) as client:
            assert _serves(shared_world, shared_grant, client, 20) < 3
            while any(one.open for one in held.values()) and time.monotonic() - began < 40:
                for one in held.values():
                    one.hold_on()
                assert _serves(shared_world, shared_grant, client, 1) < 3
                time.sleep(0.5)
        assert {name: len(one.open) for name, one in held.items()} == dict.fromkeys(held, 0)
    finally:
        for one in held.values():
            one.let_go()


MALFORMED = {
    "a_megabyte_in_one_header": (_HEAD + b"X: " + b"a" * 1_048_576 + b"\r\n\r\n", (400, 431)),
    "ten_thousand_headers": (
        _HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
        (400, 431),
    ),
    "a_long_path": (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400, 414, 431)),
    "a_negative_length": (_HEAD + b"Content-Length: -5\r\n\r\n", (400,)),
    "no_number_as_length": (_HEAD + b"Content-Length: 0x10\r\n\r\n", (400,)),
    "an_endless_length": (_HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", (400, 413)),
    "a_terabyte_announced": (_HEAD + b"Content-Length: 1099511627776\r\n\r\n", (413,)),
    "two_lengths": (_HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", (400,)),
    "length_and_chunks": (
        _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400, 411),
    ),
    "broken_chunks": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400, 411)),
    "space_before_the_colon": (_HEAD + b"Content-Length : 5\r\n\r\nabcde", (400,)),
    "a_folded_header": (_HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", (400,)),
    "nul_in_a_header": (_HEAD + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n", (400,)),
    "no_host": (b"POST /oauth/token HTTP/1.1\r\nContent-Length: 0\r\n\r\n", (400, 415)),
    "no_http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, (400, None)),
}


@pytest.mark.parametrize("request_and_answers", named(MALFORMED))
def test_A124_a_malformed_request_is_ended_quickly(
    shared_world: World,
    shared_grant: str,
    program: Served,
    request_and_answers: tuple[bytes, tuple[int | None, ...]],
) -> None:
    request, answers = request_and_answers
    with socket.create_connection(("127.0.0.1", program.port), 5) as connection:
        connection.settimeout(5)
        try:
            connection.sendall(request)
            answer = connection.recv(65_536)
        except ConnectionError:  # it was ended before all of it was sent
            answer = b""
    status = int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else None
    assert status in (*answers, None)
    with httpx.Client(base_url=program.url, timeout=30) as client:
        assert _serves(shared_world, shared_grant, client, 1) < 3


_WATCH = """
import json, os, socket, sqlite3, subprocess, sys, time
from authserver import guard

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
before = len(os.listdir("/proc/self/fd"))
guard.end_silent_connections(listener.getsockname()[1], 0.05)
client.settimeout(5)
ended = client.recv(1) == b""
time.sleep(0.5)
another = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
got_in = subprocess.run([sys.executable, "-c", another, sys.argv[1]], stderr=subprocess.DEVNULL).returncode == 0
after = len(os.listdir("/proc/self/fd"))
print(json.dumps({"ended": ended, "more_descriptors": max(0, after - before - 1), "lock_was_lost": got_in}))
"""


def test_A124_to_watch_connections_costs_no_descriptor_and_no_lock(sqlite_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, sqlite_url.removeprefix("sqlite:///")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout) == {"ended": True, "more_descriptors": 0, "lock_was_lost": False}


def _memory(pid: int) -> int:
    """Resident bytes of the largest process that a program and its workers are."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in pids]
    return max(pages) * os.sysconf("SC_PAGE_SIZE")


def test_A124_large_requests_leave_no_memory_behind(
    shared_world: World, shared_grant: str, program: Served
) -> None:
    body = urlencode(shared_world.form(shared_grant)).encode() + b"&x=" + b"a" * 120_000
    with httpx.Client(base_url=program.url, timeout=30) as client:

        def send_many() -> None:
            for size in (120_000, 1_048_576):
                for _ in range(30):
                    client.post("/oauth/token", content=body[:size] + b"a" * (size - 120_000), headers=FORM)

        send_many()
        before = _memory(program.pid)
        for _ in range(3):
            send_many()
    assert _memory(program.pid) - before < 32 * 1_048_576


def _colliding(many: int) -> str:
    # Names whose hashes would be equal in a table of 2^16 slots, were they not keyed anew in each process.
    return "&".join(f"{number * 65_536:x}=1" for number in range(many))


LABORIOUS: dict[str, Callable[[World, dict[str, str]], tuple[dict[str, str] | str, dict[str, str]]]] = {
    "colliding_names": lambda world, form: (_colliding(10_000), {}),
    "a_hundred_thousand_separators": lambda world, form: ("&" * 100_000, {}),
    "a_hundred_thousand_escapes": lambda world, form: ("x=" + "%41" * 40_000, {}),
    "labels": lambda world, form: (form | {"resource": "https://" + "a." * 50_000 + "!"}, {}),
    "long_label": lambda world, form: (form | {"resource": "https://" + "a-" * 50_000 + "!"}, {}),
    "segments": lambda world, form: (form | {"resource": MARKET + "/a" * 50_000 + " "}, {}),
    "location_labels": lambda world, form: (_details(world, locations=["https://" + "a." * 7_000 + "!"]), {}),
    "location_dots": lambda world, form: (_details(world, locations=["https://a/" + "." * 14_000 + " "]), {}),
    "long_reference": lambda world, form: (_details(world, reference="a" * 15_000 + " "), {}),
    "long_amount": lambda world, form: (
        _details(world, amount={"currency": "EUR", "value": "1" * 15_000}),
        {},
    ),
    "long_number": lambda world, form: (
        form | {"authorization_details": '[{"type": ' + "9" * 16_000 + "}]"},
        {},
    ),
    "brackets": lambda world, form: (form | {"authorization_details": "[" * 16_000}, {}),
    "objects": lambda world, form: (form | {"authorization_details": '{"a":' * 3_000}, {}),
    "escapes": lambda world, form: (form | {"authorization_details": '["' + "\\u0061" * 2_600 + '"]'}, {}),
    "open_escape": lambda world, form: (form | {"authorization_details": '["' + "\\" * 15_000}, {}),
    "dots_as_token": lambda world, form: (form | {"actor_token": "." * 100_000}, {}),
    "letters_as_token": lambda world, form: (form | {"actor_token": "a" * 100_000}, {}),
    "long_subject": lambda world, form: (
        form | {"actor_token": world.assertion("spiffe://example.org" + "/a" * 5_000 + "!")},
        {},
    ),
    "scope_words": lambda world, form: (form | {"scope": "a " * 50_000}, {}),
    "task": lambda world, form: (form | {"task_id": "a" * 100_000}, {}),
    "content_type_parameters": lambda world, form: (
        form,
        {"Content-Type": FORM["Content-Type"] + ";a=b" * 10_000},
    ),
    "content_type_quotes": lambda world, form: (
        form,
        {"Content-Type": FORM["Content-Type"] + ';a="\\' * 8_000},
    ),
    "content_type_spaces": lambda world, form: (
        form,
        {"Content-Type": FORM["Content-Type"] + " " * 50_000 + "x"},
    ),
    "accept": lambda world, form: (form, {"Accept": "a/b;q=0.1," * 5_000}),
    "accept_spaces": lambda world, form: (form, {"Accept": "a/b" + " ;" * 20_000}),
    "authorization": lambda world, form: (form, {"Authorization": "Basic " + "a" * 50_000}),
    "authorization_words": lambda world, form: (form, {"Authorization": "Basic " * 8_000 + "x"}),
    "cookies": lambda world, form: (form, {"Cookie": "a=b;" * 12_000}),
    "cookie_quotes": lambda world, form: (form, {"Cookie": 'a="' + "\\1" * 20_000}),
    "proof": lambda world, form: (form, {"DPoP": "a." * 20_000}),
    "key": lambda world, form: (form, {"Idempotency-Key": "k" * 60_000}),
}


def _details(world: World, **members: object) -> dict[str, str]:
    return {**world.form("x"), "authorization_details": json.dumps([world.action() | members])}


@pytest.mark.parametrize("name", LABORIOUS)
def test_A124_no_request_takes_long_to_refuse(shared_world: World, shared_grant: str, name: str) -> None:
    form, headers = LABORIOUS[name](shared_world, shared_world.form(shared_grant, client_id="nobody"))
    body = form if isinstance(form, str) else urlencode(form)
    began = time.monotonic()
    answer = shared_world.client.post("/oauth/token", content=body, headers=FORM | headers)
    assert answer.status_code in (400, 401, 413, 415, 431), answer.text
    assert time.monotonic() - began < 1


# --- A125: start-up ---------------------------------------------------------------------------------------------------

GOOD_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")


@dataclass
class Startable:
    """A configuration that would start a server, until a test spoils it."""

    folder: Path
    configured: Path
    key_file: Path
    environment: dict[str, str] = field(default_factory=dict)

    def change(self, old: str, new: str) -> None:
        """Write something else into the configuration."""
        said = self.configured.read_text()
        assert old in said
        self.configured.write_text(said.replace(old, new))


def _says(says: str) -> Callable[[Startable], None]:
    return lambda startable: startable.change("[keys]\n", f"[keys]\n{says}\n")


def _keys_file(content: str, mode: int = 0o600) -> Callable[[Startable], None]:
    def spoil(startable: Startable) -> None:
        startable.key_file.write_text(content)
        startable.key_file.chmod(mode)

    return spoil


def _mode(mode: int) -> Callable[[Startable], None]:
    return lambda startable: startable.key_file.chmod(mode)


def _environment(**variables: str) -> Callable[[Startable], None]:
    return lambda startable: startable.environment.update(variables)


def _issuer(issuer: str) -> Callable[[Startable], None]:
    return _environment(AUTHSERVER_SERVER__ISSUER=issuer)


SPOILED: dict[str, tuple[Callable[[Startable], None], str]] = {
    "http_issuer": (_issuer("http://auth.example.com"), "AUTHSERVER_SERVER__ISSUER"),
    "http_issuer_that_looks_local": (_issuer("http://localhost.example.com"), "http is for loopback"),
    "http_issuer_on_all_addresses": (_issuer("http://0.0.0.0:8000"), "http is for loopback"),
    "key_file_for_all": (_mode(0o644), "others can read it"),
    "key_file_for_the_group": (_mode(0o640), "others can read it"),
    "key_of_zeros": (_keys_file("A" * 43), "random bytes"),
    "short_key": (_keys_file(GOOD_KEY[:22]), "32 random bytes"),
    "default_secret": (_keys_file("changeme"), "32 random bytes"),
    "another_key": (_keys_file(GOOD_KEY), "this is another"),
    "key_in_a_configuration_for_all": (_says(f'encryption_key = "{GOOD_KEY}"'), "others can read it"),
    "debug": (_environment(FLASK_DEBUG="1"), "FLASK_DEBUG"),
    "debug_key": (_says("debug = true"), "debug"),
    "algorithm_none": (
        lambda s: s.change('kind = "spiffe"', 'kind = "spiffe"\nalgorithms = ["none"]'),
        "algorithms",
    ),
    "symmetric_algorithm": (
        lambda s: s.change('kind = "spiffe"', 'kind = "spiffe"\nalgorithms = ["ES256", "HS256"]'),
        "algorithms",
    ),
    "keys_over_http": (
        lambda s: s.change("jwks_file", 'jwks_url = "http://keys.example.com"\n# '),
        "takes an https URL",
    ),
}


@pytest.fixture
def startable(sqlite_url: str, tmp_path: Path) -> Startable:
    """A configuration that was good a moment ago: its database has secrets that were encrypted with its key."""
    with running_world(sqlite_url, tmp_path / "world") as world:
        configured = configuration(world, tmp_path)
        return Startable(tmp_path, configured, world.services.settings.keys.encryption_key_file)


@pytest.mark.parametrize("spoiled", named(SPOILED))
def test_A125_the_server_does_not_start_and_says_why(
    startable: Startable, spoiled: tuple[Callable[[Startable], None], str]
) -> None:
    spoil, words = spoiled
    spoil(startable)
    database = (startable.folder / "authserver.db").read_bytes()
    done = subprocess.run(
        [*SERVE, "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "AUTHSERVER_CONFIG": str(startable.configured), **startable.environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode not in (0, -signal.SIGTERM)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert GOOD_KEY not in done.stderr
    assert (startable.folder / "authserver.db").read_bytes() == database

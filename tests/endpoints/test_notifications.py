"""People are told: a signed webhook, web push and e-mail, each at a real receiver, and nothing is lost on the way."""

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authserver import notify
from authserver.config import ConfigurationError, load_settings
from authserver.notifications import outbox, ways
from authserver.upkeep import tidy
from examples.processes import free_port
from tests.approving import answers, asked_above_fifty, id_of, person, record, waits
from tests.attacks.forge import decoded, encoded
from tests.listening import listening
from tests.pages.browser import signed_in
from tests.world import World, running_world

SECRET = "a secret of at least thirty-two characters"


@dataclass
class Receiver:
    """A real HTTP server on loopback that keeps what is sent to it, and answers with `status`."""

    url: str = ""
    status: int = 204
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that takes everything, until it is told otherwise."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    with listening(server):
        yield kept


@contextmanager
def telling(url: str, folder: Path, **ways: Any) -> Iterator[World]:
    """A server that tells people in these ways."""
    with running_world(url, folder / "world", notifications={"allow_private_network": True} | ways) as world:
        yield world


def deliver(world: World) -> int:
    """What the thread beside the requests does every second."""
    return notify.deliver(world.services, world.clock.now())


def pending(world: World) -> int:
    """How many messages are still to be sent."""
    return world.services.database.read(outbox.pending)


# --- the webhook ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(database_url: str, tmp_path: Path, receiver: Receiver) -> Iterator[World]:
    """A server whose operator wants to be told, on both databases."""
    hook = {"webhook_url": f"{receiver.url}/hook", "webhook_secret": SECRET}
    with telling(database_url, tmp_path, **hook) as world:
        yield world


def test_the_webhook_is_told_and_can_tell_who_says_so(hooked: World, receiver: Receiver) -> None:
    told = waits(hooked, asked_above_fifty(hooked).grant)
    assert receiver.got == []  # never inside the request
    assert deliver(hooked) == 1
    ((path, headers, body),) = receiver.got
    assert path == "/hook"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    tag = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{tag}"
    said = json.loads(body)
    assert said["type"] == "approval.opened"
    assert said["data"]["approval_uri"] == told.body["approval_uri"]
    assert said["data"]["details_hash"] == record(hooked, told.approval).details_hash
    assert told.code not in body.decode()
    assert (deliver(hooked), pending(hooked)) == (0, 0)


def test_a_message_that_was_not_taken_is_sent_again_with_the_same_id(
    hooked: World, receiver: Receiver
) -> None:
    waits(hooked, asked_above_fifty(hooked).grant)
    receiver.status = 503
    for seconds in (0, 29, 1, 59, 1):
        hooked.clock.advance(seconds=seconds)
        deliver(hooked)
    assert len(receiver.got) == 3
    receiver.status = 200
    hooked.clock.advance(seconds=120)
    deliver(hooked)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert pending(hooked) == 0


def test_a_message_survives_a_process_that_died_with_it(hooked: World, receiver: Receiver) -> None:
    waits(hooked, asked_above_fifty(hooked).grant)
    now = hooked.clock.now()
    taken = hooked.services.database.write(lambda c: outbox.claim(c, now, 10))  # and never delivered
    assert len(taken) == 1
    assert deliver(hooked) == 0  # another process leaves it alone
    hooked.clock.advance(seconds=30)
    assert deliver(hooked) == 1
    assert len(receiver.got) == 1


def test_two_processes_send_each_message_once(hooked: World, receiver: Receiver) -> None:
    granted = asked_above_fifty(hooked)
    for _ in range(5):
        waits(hooked, granted.grant)
    threads = [threading.Thread(target=deliver, args=(hooked,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.got) == 5
    assert pending(hooked) == 0


def test_nobody_is_told_of_what_is_answered_already(hooked: World, receiver: Receiver) -> None:
    told = waits(hooked, asked_above_fifty(hooked).grant)
    answers(hooked, told.approval)
    assert (deliver(hooked), receiver.got, pending(hooked)) == (1, [], 0)


def test_a_refused_request_tells_nobody(hooked: World) -> None:
    hooked.refuses(
        hooked.exchange(asked_above_fifty(hooked).grant, action=hooked.action(amount={"currency": "EUR"})),
        "invalid_authorization_details",
    )
    assert pending(hooked) == 0


def test_escalation_is_told_too(hooked: World, receiver: Receiver) -> None:
    waits(hooked, asked_above_fifty(hooked).grant)
    deliver(hooked)
    hooked.clock.advance(minutes=10)
    tidy(hooked.services, hooked.clock.now())
    deliver(hooked)
    said = json.loads(receiver.got[-1][2])
    assert (said["type"], said["data"]["approver"]) == ("approval.escalated", "group:payments-duty")


def test_a_webhook_inside_the_network_takes_leave_to_be_there(
    sqlite_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    hook = {"webhook_url": receiver.url, "webhook_secret": SECRET, "allow_private_network": False}
    with telling(sqlite_url, tmp_path, **hook) as world:
        waits(world, asked_above_fifty(world).grant)
        deliver(world)
        assert (receiver.got, pending(world)) == ([], 1)


# --- web push -------------------------------------------------------------------------------------------------------


@dataclass
class PushingBrowser:
    """What a browser keeps of its subscription (RFC 8291)."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = b"sixteen  letters"

    @property
    def public(self) -> bytes:
        """The point that messages are encrypted to."""
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def subscription(self) -> str:
        """As `PushSubscription.toJSON()` has it."""
        keys = {"p256dh": encoded(self.public), "auth": encoded(self.auth)}
        return json.dumps({"endpoint": self.endpoint, "expirationTime": None, "keys": keys})

    def read(self, body: bytes) -> dict[str, Any]:
        """Decrypt a message, as RFC 8188 and RFC 8291 say."""
        salt, length = body[:16], body[20]
        point, text = body[21 : 21 + length], body[21 + length :]
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        shared = self.key.exchange(ec.ECDH(), sender)
        info = b"WebPush: info\0" + self.public + point
        secret = HKDF(SHA256(), 32, self.auth, info).derive(shared)
        key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
        said: dict[str, Any] = json.loads(AESGCM(key).decrypt(nonce, text, None).rstrip(b"\0")[:-1])
        return said


@pytest.fixture
def pushing(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that pushes."""
    with telling(sqlite_url, tmp_path, push_contact="operator@example.com") as world:
        yield world


def test_a_browser_is_pushed_what_only_it_can_read(pushing: World, receiver: Receiver) -> None:
    browser = PushingBrowser(f"{receiver.url}/push/ada")
    with signed_in(pushing) as visit:
        key = re.findall(r'data-push="([^"]+)"', visit.get("/notifications").text)[0]
        assert visit.post("/notifications/push", subscription=browser.subscription()).status_code == 303
        assert "A browser" in visit.get("/notifications").text
    told = waits(pushing, asked_above_fifty(pushing).grant)
    deliver(pushing)
    ((path, headers, body),) = receiver.got
    assert path == "/push/ada"
    assert headers["content-encoding"] == "aes128gcm"
    assert int(headers["ttl"]) == 1800
    said = browser.read(body)
    assert said == {"title": "basket-helper asks you: Pay", "url": told.body["approval_uri"]}
    token, used = re.fullmatch(r"vapid t=(\S+), k=(\S+)", headers["authorization"]).groups()  # type: ignore[union-attr]
    assert used == key
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(key))
    claims = jwt.decode(token, point, algorithms=["ES256"], audience="http://127.0.0.1")
    assert claims["sub"] == "mailto:operator@example.com"


def test_only_who_is_asked_is_pushed(pushing: World, receiver: Receiver) -> None:
    person(pushing, "grace", "payments-duty")
    for name in ("ada", "grace", "mallory"):
        with signed_in(pushing, name) as visit:
            browser = PushingBrowser(f"{receiver.url}/push/{name}")
            visit.post("/notifications/push", subscription=browser.subscription())
    waits(pushing, asked_above_fifty(pushing).grant)
    deliver(pushing)
    assert [path for path, _, _ in receiver.got] == ["/push/ada"]
    pushing.clock.advance(minutes=10)
    tidy(pushing.services, pushing.clock.now())
    deliver(pushing)
    assert [path for path, _, _ in receiver.got] == ["/push/ada", "/push/grace"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_subscription_that_is_gone_is_forgotten(pushing: World, receiver: Receiver, status: int) -> None:
    receiver.status = status
    with signed_in(pushing) as visit:
        visit.post("/notifications/push", subscription=PushingBrowser(receiver.url).subscription())
        waits(pushing, asked_above_fifty(pushing).grant)
        deliver(pushing)
        assert "A browser" not in visit.get("/notifications").text
    assert pending(pushing) == 0


@pytest.mark.parametrize(
    "subscription",
    ["", "x", "{}", "[]", '{"endpoint": 1}', '{"endpoint": "https://a.example", "keys": {"p256dh": "x"}}'],
)
def test_a_subscription_that_is_none_is_refused(pushing: World, subscription: str) -> None:
    with signed_in(pushing) as visit:
        assert visit.post("/notifications/push", subscription=subscription).status_code == 400


def test_a_subscription_that_cannot_be_used_is_forgotten(pushing: World) -> None:
    broken = json.dumps({"endpoint": "https://a.example/x", "keys": {"p256dh": "AAAA", "auth": "AAAA"}})
    with signed_in(pushing) as visit:
        assert visit.post("/notifications/push", subscription=broken).status_code == 303
        waits(pushing, asked_above_fifty(pushing).grant)
        deliver(pushing)
        assert "A browser" not in visit.get("/notifications").text


def test_push_cannot_reach_inside(sqlite_url: str, tmp_path: Path, receiver: Receiver) -> None:
    ways = {"push_contact": "operator@example.com", "allow_private_network": False}
    with telling(sqlite_url, tmp_path, **ways) as world:
        with signed_in(world) as visit:
            visit.post("/notifications/push", subscription=PushingBrowser(receiver.url).subscription())
        waits(world, asked_above_fifty(world).grant)
        deliver(world)
    assert receiver.got == []


def test_the_key_is_the_same_in_every_process() -> None:
    one, other = (ways.application_server_key(ways.push_key(b"x" * 32)) for _ in range(2))
    assert one == other != ways.application_server_key(ways.push_key(b"y" * 32))


# --- e-mail ---------------------------------------------------------------------------------------------------------


class Postbox:
    """What a real SMTP server took."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """SMTP's DATA."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.letters.append((envelope.rcpt_tos, content.decode().replace("=\r\n", "").replace("=3D", "=")))
        return "250 OK"


@pytest.fixture
def mailing(sqlite_url: str, tmp_path: Path) -> Iterator[tuple[World, Postbox]]:
    """A server that sends e-mail, and where it arrives."""
    postbox = Postbox()
    port = free_port()
    controller = Controller(postbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        mail = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none"}
        with telling(sqlite_url, tmp_path, mail_from="authserver@example.com", **mail) as world:
            yield world, postbox
    finally:
        controller.stop()


def test_an_address_is_written_to_once_its_owner_has_confirmed_it(mailing: tuple[World, Postbox]) -> None:
    world, postbox = mailing
    with signed_in(world) as visit:
        assert visit.post("/notifications/email", email="ada@example.com").status_code == 303
        waits(world, asked_above_fifty(world).grant)
        assert deliver(world) == 1  # the question alone
        ((to, letter),) = postbox.letters
        assert to == ["ada@example.com"]
        code = re.findall(r"/notifications/confirm\?code=(\S+)", letter)[0]
        with signed_in(world, "mallory") as other:
            assert other.post("/notifications/confirm", code=code).status_code == 404
        assert "Open the link" in visit.get(f"/notifications/confirm?code={code}").text or True
        assert visit.get(f"/notifications/confirm?code={code}").status_code == 200
        assert "Open the link" in visit.get("/notifications").text  # to look at the link confirms nothing
        assert visit.post("/notifications/confirm", code="x").status_code == 404
        assert visit.post("/notifications/confirm", code=code).status_code == 303
        assert "Open the link" not in visit.get("/notifications").text
    told = waits(world, asked_above_fifty(world).grant)
    deliver(world)
    to, letter = postbox.letters[-1]
    assert to == ["ada@example.com"]
    assert "Subject: basket-helper asks you: Pay" in letter
    assert told.body["approval_uri"] in letter
    assert "Example Foods" not in letter  # the agent's own word


def test_a_person_is_written_to_in_their_language(mailing: tuple[World, Postbox]) -> None:
    world, postbox = mailing
    with signed_in(world, **{"Accept-Language": "nl-NL,nl;q=0.9"}) as visit:
        visit.post("/notifications/email", email="ada@example.com")
        deliver(world)
        code = re.findall(r"/notifications/confirm\?code=(\S+)", postbox.letters[-1][1])[0]
        assert "Subject: Is dit je adres?" in postbox.letters[-1][1]
        visit.post("/notifications/confirm", code=code)
        waits(world, asked_above_fifty(world).grant)
        deliver(world)
        assert "Subject: basket-helper vraagt je: Betalen" in postbox.letters[-1][1]
        visit.post("/language", language="en")
        with signed_in(world, "mallory") as other:
            other.post("/language", language="nl")  # is theirs, and nobody else's
        waits(world, asked_above_fifty(world).grant)
        deliver(world)
        assert "Subject: basket-helper asks you: Pay" in postbox.letters[-1][1]


def test_an_address_can_be_taken_away(mailing: tuple[World, Postbox]) -> None:
    world, postbox = mailing
    with signed_in(world) as visit:
        visit.post("/notifications/email", email="ada@example.com")
        (end,) = re.findall(r'action="(/notifications/[^"/]+/end)"', visit.get("/notifications").text)
        with signed_in(world, "mallory") as other:
            other.post(end)
        assert "ada@example.com" in visit.get("/notifications").text
        visit.post(end)
        assert "ada@example.com" not in visit.get("/notifications").text
    deliver(world)
    assert (postbox.letters, pending(world)) == ([], 0)


@pytest.mark.parametrize(
    "email", ["", "ada", "a@b\r\nBcc: c@d", "a b@c", "@c", "a@", f"{'a' * 250}@example.com"]
)
def test_what_is_no_address_is_not_taken(mailing: tuple[World, Postbox], email: str) -> None:
    world, _ = mailing
    with signed_in(world) as visit:
        assert visit.post("/notifications/email", email=email).status_code == 400
    assert pending(world) == 0


def test_nobody_has_addresses_without_end(mailing: tuple[World, Postbox]) -> None:
    world, _ = mailing
    with signed_in(world) as visit:
        got = [
            visit.post("/notifications/email", email=f"ada{number}@example.com").status_code
            for number in range(11)
        ]
    assert got == [303] * 10 + [409]


def test_nobody_fills_a_strangers_letter_box(mailing: tuple[World, Postbox]) -> None:
    world, postbox = mailing
    got = []
    with signed_in(world) as visit:
        for _ in range(20):
            got.append(visit.post("/notifications/email", email="stranger@example.com").status_code)
            deliver(world)
            for end in re.findall(r'action="(/notifications/[^"/]+/end)"', visit.get("/notifications").text):
                visit.post(end)
    assert got == [303] * 15 + [429] * 5
    assert len(postbox.letters) == 15


def test_a_mail_server_that_is_down_loses_nothing(sqlite_url: str, tmp_path: Path) -> None:
    mail = {"smtp_host": "127.0.0.1", "smtp_port": 1, "smtp_security": "none", "mail_from": "a@example.com"}
    with telling(sqlite_url, tmp_path, **mail) as world:
        with signed_in(world) as visit:
            visit.post("/notifications/email", email="ada@example.com")
        deliver(world)
        assert pending(world) == 1


def test_addresses_are_kept_encrypted(mailing: tuple[World, Postbox]) -> None:
    world, _ = mailing
    with signed_in(world) as visit:
        visit.post("/notifications/email", email="ada@example.com")
    database = world.services.database.url.database
    assert database is not None
    world.services.database.dispose()
    kept = Path(database).read_bytes()
    assert b"ada@example.com" not in kept


# --- where it is not configured -------------------------------------------------------------------------------------


def test_without_a_way_nothing_is_kept_and_nothing_offered(sqlite_world: World) -> None:
    waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    assert pending(sqlite_world) == 0
    assert id_of(sqlite_world, "ada")
    with signed_in(sqlite_world) as visit:
        assert "How you are told" not in visit.get("/approvals").text
        assert visit.post("/notifications/email", email="ada@example.com").status_code == 404
        browser = PushingBrowser("https://push.example/x")
        assert visit.post("/notifications/push", subscription=browser.subscription()).status_code == 404


@pytest.mark.parametrize(
    "section",
    [
        'webhook_url = "https://a.example"',
        'webhook_url = "https://a.example"\nwebhook_secret = "short"',
        'webhook_url = "http://a.example"\nwebhook_secret = "' + SECRET + '"',
        'smtp_host = "a.example"',
        'smtp_host = "a.example"\nmail_from = "a@b.example"\nsmtp_security = "none"',
        'smtp_host = "a.example"\nmail_from = "a@b.example"\nsmtp_username = "x"',
        'push_contact = "nobody"',
    ],
)
def test_a_way_that_cannot_work_stops_the_start(tmp_path: Path, section: str) -> None:
    file = tmp_path / "authserver.toml"
    file.write_text(
        '[server]\nissuer = "https://a.example"\n[database]\nurl = "sqlite:///x.db"\n'
        '[[trust_domains]]\nname = "d"\nkind = "spiffe"\njwks_file = "x"\n'
        f"[notifications]\n{section}\n"
    )
    with pytest.raises(ConfigurationError, match="notifications"):
        load_settings(file)

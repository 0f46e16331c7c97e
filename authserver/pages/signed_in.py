"""Who is looking at a page."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flask import Request

from authserver import sign_in
from authserver.accounts.sessions import Authentication, Visitor
from authserver.accounts.users import User
from authserver.pages import cookies
from authserver.services import Services


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person in a session that stands. `amr` and `acr` say how they proved who they are, `authenticated_at` when."""

    user: User
    session_id: str
    authenticated_at: datetime
    csrf: str = field(repr=False)
    amr: tuple[str, ...]
    acr: str | None = None

    @property
    def how(self) -> Authentication:
        """How the person signed in."""
        return Authentication(self.amr, self.acr, self.authenticated_at)


@dataclass(slots=True)
class NotSignedIn(Exception):  # an answer, not an error
    """The page is for somebody who is signed in, or has proved it lately (`again`); the person is sent to sign in."""

    again: bool = False


def look(services: Services, request: Request) -> SignedIn | None:
    """Who is signed in, if anybody is."""
    secret = cookies.read(services, request, cookies.SESSION)
    found = secret and sign_in.signed_in(services, secret, services.clock.now())
    if not secret or not found:
        return None
    session, user = found
    return SignedIn(
        user,
        session.session_id,
        session.authenticated_at,
        cookies.csrf_of(secret),
        session.amr,
        session.acr,
    )


def require(services: Services, request: Request) -> SignedIn:
    """Who is signed in. Raises `NotSignedIn`, which leads to signing in and then back here."""
    found = look(services, request)
    if found is None:
        raise NotSignedIn
    return found


def require_recent(services: Services, request: Request) -> SignedIn:
    """The same, of somebody who has signed in just lately: `[pages] reauthenticate_after` (RFC 9470)."""
    found = require(services, request)
    age = services.clock.now() - found.authenticated_at
    if age > timedelta(seconds=services.settings.pages.reauthenticate_after):
        raise NotSignedIn(again=True)
    return found


def visitor(services: Services, request: Request) -> Visitor:
    """Where the request comes from."""
    browser = "".join(letter for letter in request.user_agent.string[:200] if letter.isprintable())
    return Visitor(_address(services, request), browser)


def _address(services: Services, request: Request) -> str:
    proxies = services.settings.pages.proxies
    passed = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
    # Each proxy adds who spoke to it at the end; what stands before that is only what a client said.
    if proxies and len(passed) >= proxies and passed[-proxies]:
        return passed[-proxies][:64]
    return (request.remote_addr or "")[:64]

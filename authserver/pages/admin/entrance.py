"""Who comes in: people with a role; and what the role lets them do, which every page and every form asks here."""

from dataclasses import dataclass
from typing import Any

from flask import Request, Response

from authserver.administration.roles import Permission, Role, require
from authserver.endpoints.forms import Form
from authserver.errors import Refusal
from authserver.pages import answers, signed_in
from authserver.pages.signed_in import SignedIn
from authserver.services import Services

_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Administrator:
    """Somebody who is signed in and has a role."""

    signed_in: SignedIn
    role: Role

    def may(self, permission: str) -> bool:
        """Whether to show an operation; the operation itself asks `require`."""
        try:
            require(self.role, Permission(permission))
        except Refusal:
            return False
        return True

    @property
    def by(self) -> str:
        """Who it was, for the audit."""
        return f"user:{self.signed_in.user.user_id}"


def role_of(signed_in: SignedIn | None) -> Role | None:
    """The role of whoever is signed in; one that this server does not know is none."""
    role = signed_in.user.role if signed_in else None
    return Role(role) if role in set(Role) else None


def enter(
    services: Services, request: Request, permission: Permission = Permission.READ, *, recent: bool = False
) -> Administrator:
    """Who is looking. Raises `NotSignedIn`; `Refusal`: 404 for people without a role, 403 where theirs is not enough.

    `recent` asks for somebody who has signed in just lately (RFC 9470).
    """
    who = signed_in.require(services, request)
    role = role_of(who)
    if role is None:
        raise Refusal("not_found", "there is nothing here", rule="console.no_role", status=404)
    require(role, permission)
    return Administrator(signed_in.require_recent(services, request) if recent else who, role)


def read_form(services: Services, request: Request, permission: Permission) -> tuple[Administrator, Form]:
    """Who sent a form of the console, and the form. Raises what `enter` and `read_page_form` raise."""
    administrator = enter(services, request, permission, recent=True)
    return administrator, answers.read_page_form(services, request, administrator.signed_in)


def is_a_reason(unverified: str) -> bool:
    """Whether it says why, in a line that nobody can misread: it stands in the audit."""
    return 0 < len(unverified) <= _LONGEST_REASON and unverified.isprintable()


def page(template: str, administrator: Administrator, status: int = 200, **context: object) -> Response:
    """`templates/admin/TEMPLATE.html` for an administrator."""
    shown: dict[str, Any] = {"administrator": administrator, **context}
    return answers.page(f"admin/{template}", administrator.signed_in, status, **shown)


def argument(request: Request, name: str, longest: int = 200) -> str | None:
    """A parameter of the address; None where it is missing, empty, or nothing that could be meant."""
    text = request.args.get(name, "").strip()
    return text if text and len(text) <= longest and text.isprintable() else None


def event_id(request: Request, name: str) -> int | None:
    """The number of an audit event in the address."""
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

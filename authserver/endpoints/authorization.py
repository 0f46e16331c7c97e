"""`POST /oauth/par` (RFC 9126) and `POST /oauth/device_authorization` (RFC 8628): an agent asks a person."""

import re
from urllib.parse import urlencode

from flask import Request, Response

from authserver import ask, dpop, strict_json
from authserver.accounts.sessions import Visitor
from authserver.actors.agents import Agent
from authserver.ask import Asked
from authserver.audit.events import Record
from authserver.delegations.requests import Action, Change, ToBrowser, ToDevice
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of
from authserver.endpoints.forms import Form, read_form
from authserver.endpoints.token import credentials, proof_in
from authserver.errors import Refusal
from authserver.holder import read_proof
from authserver.policy.delegation_details import parse_delegation
from authserver.services import Services

_MAY_REPEAT = frozenset({"resource"})  # RFC 8707 §2; the places are in the details
_S256 = re.compile(r"[A-Za-z0-9_-]{43}")  # a SHA-256 in base64url: a code_challenge, or a key's thumbprint
_STATE = re.compile(r"[\x20-\x7e]{1,1024}")  # RFC 6749 §A.5
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
_ACTIONS: dict[str, Action] = {"create": "create", "merge": "merge", "replace": "replace"}


def push(services: Services, request: Request) -> Response:
    """Answer one pushed authorization request with a `request_uri`."""
    record, now = Record("authorization_request"), services.clock.now()
    try:
        form = _form(request)
        caller = _agent_of(services, form, request, record)
        if form.one("request_uri") is not None:
            raise _malformed("request_uri is not taken here", "form.request_uri")  # RFC 9126 §2.1
        if form.one("request") is not None:
            raise Refusal("request_not_supported", "request objects are not taken", rule="form.request")
        asked, proof = _asked(form, services), _proof(services, request)
        pushed = ask.push(services, asked, _way(form, proof), proof, caller, record, now)
    except Refusal as refusal:
        raise _recorded(services, record, refusal) from refusal
    headers = [] if proof is None else [("DPoP-Nonce", services.nonces.make(now))]
    return json_answer({"request_uri": pushed.request_uri, "expires_in": pushed.expires_in}, 201, headers)


def start_device(services: Services, request: Request, visitor: Visitor) -> Response:
    """Answer one device authorization request with its codes; `visitor` is where it comes from."""
    record, now = Record("device_authorization"), services.clock.now()
    try:
        form = _form(request)
        caller = _agent_of(services, form, request, record)
        way = ToDevice(visitor.address, visitor.browser)
        codes = ask.ask_by_device(services, _asked(form, services), way, caller, record, now)
    except Refusal as refusal:
        raise _recorded(services, record, refusal) from refusal
    page = f"{services.issuer}/device"
    return json_answer(
        {
            "device_code": codes.device_code,
            "user_code": codes.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?{urlencode({'user_code': codes.user_code})}",
            "expires_in": codes.expires_in,
            "interval": codes.interval,
        }
    )


def _form(request: Request) -> Form:
    form = read_form(request)
    form.only_once(but=_MAY_REPEAT)
    return form


def _agent_of(services: Services, form: Form, request: Request, record: Record) -> Agent:
    caller = client_of(services, credentials(form, request.headers), services.clock.now())
    if not isinstance(caller, Agent):
        raise Refusal("unauthorized_client", "only agents ask users", rule="authorization.not_an_agent")
    record.client_id = caller.client_id
    return caller


def _recorded(services: Services, record: Record, refusal: Refusal) -> Refusal:
    if refusal.status < 500:
        now = services.clock.now()
        services.database.write(lambda connection: record.refused(connection, now, refusal))
    return refusal


def _asked(form: Form, services: Services) -> Asked:
    try:
        entries = strict_json.parse(form.required("authorization_details"))
    except strict_json.JsonRefused as error:
        raise _bad_details(f"authorization_details {error}") from error
    if not isinstance(entries, list) or len(entries) != 1:
        raise _bad_details("authorization_details must be an array of exactly one agent_delegation")
    return Asked(parse_delegation(entries[0], services.vocabulary), _change(form))


def _change(form: Form) -> Change:
    """FAPI Grant Management §5.2: which grant is meant, and what with it."""
    action, grant_id = form.one("grant_management_action"), form.one("grant_id")
    if action is not None and action not in _ACTIONS:
        raise _malformed(
            "grant_management_action takes create, merge or replace", "form.grant_management_action"
        )
    if (action in ("merge", "replace")) != (grant_id is not None):
        raise _malformed("grant_id goes with merge or replace, and with nothing else", "form.grant_id")
    return Change(_ACTIONS[action or "create"], grant_id)


def _way(form: Form, proof: dpop.Proof | None) -> ToBrowser:
    if form.required("response_type") != "code":
        raise Refusal("unsupported_response_type", "response_type takes code", rule="form.response_type")
    if form.one("response_mode") not in (None, "query"):
        raise _malformed("response_mode takes query", "form.response_mode")
    return ToBrowser(
        redirect_uri=form.required("redirect_uri"),
        state=_state(form),
        code_challenge=_challenge(form),
        dpop_jkt=_dpop_jkt(form, proof),
        prompt=_prompt(form),
        max_age=_max_age(form),
        acr_values=tuple((form.one("acr_values") or "").split())[:20],
    )


def _challenge(form: Form) -> str:
    challenge = form.required("code_challenge")
    # RFC 7636 §4.3: without a method it would be plain, which shows the verifier to whoever sees the request.
    if form.one("code_challenge_method") != "S256":
        raise _malformed("code_challenge_method takes S256", "form.code_challenge_method")
    if not _S256.fullmatch(challenge):
        raise _malformed("code_challenge takes 43 characters of base64url", "form.code_challenge")
    return challenge


def _state(form: Form) -> str | None:
    state = form.one("state")
    if state is not None and not _STATE.fullmatch(state):
        raise _malformed("state takes up to 1024 visible ASCII characters", "form.state")
    return state


def _dpop_jkt(form: Form, proof: dpop.Proof | None) -> str | None:
    jkt = form.one("dpop_jkt")
    if jkt is not None and not _S256.fullmatch(jkt):
        raise _malformed("dpop_jkt takes the SHA-256 thumbprint of a key", "form.dpop_jkt")
    if jkt is not None and proof is not None and proof.jkt != jkt:  # RFC 9449 §10.1
        raise Refusal("invalid_dpop_proof", "dpop_jkt is another key than the proof's", rule="dpop.jkt")
    return proof.jkt if proof is not None else jkt


def _prompt(form: Form) -> tuple[str, ...]:
    prompts = tuple((form.one("prompt") or "").split())
    if not _PROMPTS.issuperset(prompts) or ("none" in prompts and len(prompts) > 1):
        raise _malformed("prompt takes none alone, or of login, consent, select_account", "form.prompt")
    return prompts


def _max_age(form: Form) -> int | None:
    age = form.one("max_age")
    if age is None:
        return None
    if not (age.isascii() and age.isdigit() and len(age) <= 9):
        raise _malformed("max_age takes seconds", "form.max_age")
    return int(age)


def _proof(services: Services, request: Request) -> dpop.Proof | None:
    url = f"{services.issuer}/oauth/par"
    return read_proof(services, proof_in(request.headers), url, services.clock.now())


def _bad_details(description: str) -> Refusal:
    return Refusal("invalid_authorization_details", description, rule="details")


def _malformed(description: str, rule: str) -> Refusal:
    return Refusal("invalid_request", description, rule=rule)

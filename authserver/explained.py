"""What each error code means and what to do about it: the text of the pages that `error_uri` and `type` lead to.

One source for the server's own pages (`pages.errors`) and for the documentation's.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explained:
    """One error: where it comes from in the standards, what it says, and how to go on."""

    source: str
    meaning: str
    what_to_do: str


ERRORS: Mapping[str, Explained] = {
    "access_denied": Explained(
        "RFC 6749 §4.1.2.1, RFC 8628 §3.5",
        "Somebody or something said no: the person did not allow it, an approval was refused, a form did not come "
        "from a page of this server, or the action needs an approval and the request was not ready to wait for one.",
        "Where `violations` names `approval`, send `completion_mode=deferred` and poll. Otherwise take the no for an "
        "answer; asking the same again makes people tired, and pauses the delegation.",
    ),
    "authorization_pending": Explained(
        "RFC 8628 §3.5, OAuth Deferred Token Response",
        "A person has not answered yet. Nothing is decided and no budget is held.",
        "Poll again with the same code after `interval` seconds, until there is another answer.",
    ),
    "conflict": Explained(
        "RFC 9457; HTTP 409",
        "The step does not fit the state of what it is about: the token was used already or has ended, the amount is "
        "higher than what is held, or something is to be captured that was voided. The state is as it was.",
        "Look at `detail` and `violations`. A token that was used is used: ask the agent for another.",
    ),
    "consent_required": Explained(
        "OpenID Connect Core §3.1.2.6",
        "The agent asked for an answer without any page (`prompt=none`), and a person has to see one.",
        "Send the person to the authorization endpoint without `prompt=none`.",
    ),
    "expired_token": Explained(
        "RFC 8628 §3.5, OAuth Deferred Token Response",
        "Nobody answered in time. No answer is a refusal.",
        "Begin anew, with a new request.",
    ),
    "forbidden": Explained(
        "RFC 9457; HTTP 403",
        "The server knows who is calling, and this is not for them.",
        "Use credentials that may do this, or ask an administrator for the role that it takes.",
    ),
    "idempotency_key_reused": Explained(
        "RFC 9457; HTTP 422",
        "This `Idempotency-Key` stood for another request before. Nothing was done.",
        "Use a new key for each new request, and the same key with the same body for a retry.",
    ),
    "insufficient_scope": Explained(
        "RFC 6750 §3.1",
        "The token is good, and is not for this.",
        "Use a token for just this action, at just this place.",
    ),
    "invalid_authorization_details": Explained(
        "RFC 9396 §5",
        "The details could not be read, or they ask for what the delegation, the catalogue of actions or a policy "
        "does not allow.",
        "Read `violations`: each entry names the member (`limits.per_action`), what was requested and what is allowed; "
        "for an amount, what is left. Change the request and send it again, under a new `Idempotency-Key`.",
    ),
    "invalid_client": Explained(
        "RFC 6749 §5.2",
        "The client could not be authenticated: its secret or its assertion is wrong, has expired, was used before, "
        "or is not for this server. What exactly is told to nobody but the server's audit.",
        "Check the client's id; that the assertion's `aud` is the issuer, letter by letter; its lifetime; that it is "
        "new; and that the trust domain publishes the key that signed it.",
    ),
    "invalid_dpop_proof": Explained(
        "RFC 9449 §5, §4.3",
        "The action needs a proof of the agent's key and there is none, or the proof does not hold: wrong method or "
        "address, too old, used before, or by another key.",
        "Sign a new proof for each request, with `htm` and `htu` of that request and the newest `DPoP-Nonce`.",
    ),
    "invalid_grant": Explained(
        "RFC 6749 §5.2",
        "The code or the grant is unknown, has expired, was used before, or belongs to another agent. One answer for "
        "all of these, so that nothing is learned by trying.",
        "Begin anew with a new request to the person.",
    ),
    "invalid_grant_id": Explained(
        "FAPI Grant Management §6.4",
        "The grant that is to be read, changed or given back is not there for this agent and this person.",
        "Ask for a new delegation, without `grant_id`.",
    ),
    "invalid_request": Explained(
        "RFC 6749 §5.2, RFC 8693 §2.2.2",
        "A parameter is missing, repeated or malformed; or one of the tokens is not acceptable: forged, expired, not "
        "for this server, or not for the workload that showed it; or the delegation was revoked, is paused or over.",
        "`error_description` says which parameter it is. Why a grant no longer stands is told only to the agent that "
        "it names, with a good assertion of its own.",
    ),
    "invalid_scope": Explained(
        "RFC 6749 §5.2",
        "The scope is not known, is more than one, or names an action that needs an amount, a merchant or data.",
        "Name one action of the catalogue, or send `authorization_details` instead.",
    ),
    "invalid_target": Explained(
        "RFC 8707 §2",
        "No resource server was named, or several, or one that is not registered, or `resource`, `audience` and "
        "`locations` do not agree.",
        "Name exactly one, as its registered identifier, letter by letter.",
    ),
    "invalid_token": Explained(
        "RFC 6750 §3.1",
        "The bearer token is unknown, malformed or has ended.",
        "Use a token that is alive, issued by this server for this use.",
    ),
    "login_required": Explained(
        "OpenID Connect Core §3.1.2.6",
        "The agent asked for an answer without any page (`prompt=none`), and nobody is signed in.",
        "Send the person to the authorization endpoint without `prompt=none`.",
    ),
    "merchant_facts": Explained(
        "RFC 9457; HTTP 409",
        "The merchant, its class or its country is not what the token was made for. Where the facts break the "
        "delegation the reservation is voided (`voided`), and the token is spent.",
        "Read `violations`. The agent has to ask for a token with the facts that really apply.",
    ),
    "not_found": Explained(
        "RFC 9457; HTTP 404",
        "There is nothing here, or nothing that is the caller's. One answer for both.",
        "Check the address, and with which credentials you call.",
    ),
    "method_not_allowed": Explained(
        "RFC 9110 §15.5.6; HTTP 405",
        "There is something at this address, and this is not how it is asked for. Nothing was done.",
        "Use one of the methods in the answer's `Allow` header.",
    ),
    "precondition_required": Explained(
        "RFC 6585 §3; HTTP 428",
        "A change has to say which state of the thing it is for, so that nobody undoes what somebody else did. Nothing "
        "was done.",
        "Read it, and send its `ETag` as `If-Match` with the change.",
    ),
    "precondition_failed": Explained(
        "RFC 9110 §15.5.13; HTTP 412",
        "What was to be changed has changed since it was read: its `ETag` is another than the one in `If-Match`. "
        "Nothing was done.",
        "Read it again, look at what changed, and send the change with the new `ETag`.",
    ),
    "request_not_supported": Explained(
        "RFC 9126 §2.1, RFC 9101",
        "Request objects (`request`) are not taken.",
        "Send the parameters themselves to the pushed authorization request endpoint.",
    ),
    "server_error": Explained(
        "RFC 6749 §4.1.2.1",
        "The server failed, and wrote down why. Nothing half-done stays behind.",
        "Try again with the same `Idempotency-Key`. If it stays so, tell whoever operates the server, with the time.",
    ),
    "slow_down": Explained(
        "RFC 8628 §3.5, OAuth Deferred Token Response",
        "The question came sooner than it may. Each time adds five seconds to the interval.",
        "Wait for `interval` seconds and five more before the next question.",
    ),
    "temporarily_unavailable": Explained(
        "RFC 6749 §4.1.2.1; HTTP 503",
        "The database cannot record this now, or there is more to do than can be done. Nothing was claimed: what was "
        "not answered either happened or did not.",
        "Wait for `Retry-After` seconds and send the same again under the same `Idempotency-Key`: it is done once.",
    ),
    "too_many_requests": Explained(
        "RFC 6585 §4; HTTP 429",
        "There were more requests than anybody may send in so short a time. Nothing was done.",
        "Wait for `Retry-After` seconds, then go on more slowly.",
    ),
    "unauthorized_client": Explained(
        "RFC 6749 §5.2",
        "The client is known, and this kind of request is not for it.",
        "Only agents ask people and exchange grants; only resource servers redeem and introspect.",
    ),
    "unauthorized": Explained(
        "RFC 9110 §15.5.2; HTTP 401",
        "Nobody is known by what the request brought: no credentials, or such as have ended or are not for this.",
        "Send good credentials: the challenge in `WWW-Authenticate` says which kind.",
    ),
    "unmet_authentication_requirements": Explained(
        "OpenID Connect Unmet Authentication Requirements §3",
        "The agent wanted another way of signing in (`acr_values`, `max_age`) than the person used.",
        "Ask again without it, or have the person sign in that way.",
    ),
    "unsupported_grant_type": Explained(
        "RFC 6749 §5.2",
        "The token endpoint does not know this `grant_type`.",
        "`grant_types_supported` in the server's metadata lists those that it knows.",
    ),
    "unsupported_response_type": Explained(
        "RFC 6749 §4.1.2.1",
        "The authorization endpoint answers with a code and with nothing else.",
        "Send `response_type=code`.",
    ),
    "use_dpop_nonce": Explained(
        "RFC 9449 §8",
        "The proof has to hold a nonce of this server, and has none or an old one.",
        "Take the `DPoP-Nonce` of this answer into a new proof and send the request again.",
    ),
}

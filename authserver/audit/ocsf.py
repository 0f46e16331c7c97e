"""Events as the Open Cybersecurity Schema Framework has them: API Activity (6003) of version 1.8; pure."""

from collections.abc import Mapping
from datetime import datetime

_VERSION = "1.8.0"
_CATEGORY, _CLASS = 6, 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_INFORMATIONAL, _LOW = 1, 2
_SUCCESS, _FAILURE = 1, 2
_PRODUCT = "authserver"
# What the first part of an event's name does to what it is about, and what its last part does where that says more.
_OF_USE_CASE = {
    "exchange": _CREATE,
    "hand_over": _CREATE,
    "consent": _CREATE,
    "introspection": _READ,
    "grant_query": _READ,
    "revocation": _DELETE,
    "token_revocation": _DELETE,
    "task_completion": _DELETE,
}
_OF_CHANGE = {
    "created": _CREATE,
    "added": _CREATE,
    "changed": _UPDATE,
    "lowered": _UPDATE,
    "paused": _UPDATE,
    "resumed": _UPDATE,
    "moved": _UPDATE,
    "enabled": _UPDATE,
    "disabled": _UPDATE,
    "revoked": _DELETE,
    "removed": _DELETE,
}


def to_ocsf(event: Mapping[str, object]) -> dict[str, object]:
    """One event, given as it is exported; all of it is in `unmapped` as well, so that nothing is lost."""
    name, at, client = str(event["event"]), str(event["at"]), event.get("client_id")
    activity, refused = _activity(name), name.endswith(".refused")
    return {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": activity,
        # Other takes the source's own name for it; the others have one already.
        **({"activity_name": name} if activity == _OTHER else {}),
        "type_uid": _CLASS * 100 + activity,
        "time": int(datetime.fromisoformat(at).timestamp() * 1_000),
        "severity_id": _LOW if refused else _INFORMATIONAL,
        "status_id": _FAILURE if refused else _SUCCESS,
        **_outcome(event),
        "actor": {"app_uid": client} if client is not None else {"app_name": _PRODUCT},
        "api": {"operation": name, "service": {"name": _PRODUCT}},
        "src_endpoint": {"svc_name": client if client is not None else _PRODUCT},
        **_resources(event),
        "metadata": {
            "version": _VERSION,
            "product": {"name": _PRODUCT, "vendor_name": _PRODUCT},
            "log_name": "audit",
            "event_code": name,
            "original_event_uid": str(event["id"]),
            "original_time": at,
        },
        "unmapped": dict(event),
    }


def _activity(name: str) -> int:
    use_case, _, outcome = name.partition(".")
    return _OF_CHANGE.get(outcome) or _OF_USE_CASE.get(use_case, _OTHER)


def _outcome(event: Mapping[str, object]) -> dict[str, object]:
    rule, data = event.get("rule"), event.get("data")
    detail = data.get("description") if isinstance(data, Mapping) else None
    said = {"status_code": rule, "status_detail": detail}
    return {member: value for member, value in said.items() if value is not None}


def _resources(event: Mapping[str, object]) -> dict[str, object]:
    about = [
        {"type": kind, "uid": event[f"{kind}_id"]}
        for kind in ("delegation", "action")
        if f"{kind}_id" in event
    ]
    return {"resources": about} if about else {}

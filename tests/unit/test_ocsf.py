"""What is exported as OCSF is what version 1.8 of the schema asks of API Activity (class 6003)."""

from typing import Any

import pytest

from authserver.audit.ocsf import to_ocsf

# The schema's attributes, as far as this server writes them: those that are required, and those that there are.
REQUIRED = {
    "": {
        "activity_id",
        "actor",
        "api",
        "category_uid",
        "class_uid",
        "metadata",
        "severity_id",
        "src_endpoint",
        "time",
        "type_uid",
    },
    "actor": set[str](),
    "api": {"operation"},
    "metadata": {"product", "version"},
    "src_endpoint": set[str](),
}
THERE_ARE = {
    "": REQUIRED[""]
    | {"activity_name", "message", "resources", "status_code", "status_detail", "status_id", "unmapped"},
    "actor": {"app_name", "app_uid", "authorizations", "idp", "process", "session", "user"},
    "api": {"group", "operation", "request", "response", "service", "version"},
    "metadata": {
        "correlation_uid",
        "event_code",
        "log_name",
        "original_event_uid",
        "original_time",
        "product",
        "sequence",
        "uid",
        "version",
    },
    "src_endpoint": {"hostname", "ip", "name", "svc_name", "uid"},
}
# At least one of these says who it was, and from where.
WHO = {
    "actor": {"process", "user", "session", "app_name", "app_uid"},
    "src_endpoint": THERE_ARE["src_endpoint"],
}
EVENT = {"id": 7, "at": "2026-11-24T10:00:00.250000Z", "event": "exchange.permitted", "data": {}}


def event(**members: object) -> dict[str, Any]:
    return to_ocsf(EVENT | members)


@pytest.mark.parametrize(
    "written",
    [
        event(client_id="basket-helper", delegation_id="d", action_id="a", leaf=6),
        event(event="exchange.refused", rule="limits.total", data={"description": "too much"}),
        event(event="audit.retention"),
    ],
)
def test_every_event_has_what_the_class_asks_for_and_nothing_else(written: dict[str, Any]) -> None:
    for name, required in REQUIRED.items():
        part = written[name] if name else written
        assert required <= set(part) <= THERE_ARE[name], name
        assert not name or name not in WHO or set(part) & WHO[name]
    assert (written["category_uid"], written["class_uid"]) == (6, 6003)
    assert written["type_uid"] == 6003 * 100 + written["activity_id"]
    assert written["activity_id"] in (1, 2, 3, 4, 99)
    assert ("activity_name" in written) == (written["activity_id"] == 99)
    assert written["time"] == 1_795_514_400_250
    assert written["metadata"]["version"] == "1.8.0"
    assert written["metadata"]["original_event_uid"] == "7"
    assert written["unmapped"]["event"] == written["metadata"]["event_code"]


@pytest.mark.parametrize(
    ("name", "activity"),
    [
        ("exchange.permitted", 1),
        ("exchange.refused", 1),
        ("delegation.created", 1),
        ("introspection.permitted", 2),
        ("delegation.lowered", 3),
        ("agent.disabled", 3),
        ("revocation", 4),
        ("key.revoked", 4),
        ("audit.retention", 99),
    ],
)
def test_what_was_done_has_the_verb_of_the_schema(name: str, activity: int) -> None:
    assert event(event=name)["activity_id"] == activity


def test_a_refusal_is_a_failure_that_names_its_rule() -> None:
    refused = event(event="exchange.refused", rule="limits.total", data={"description": "too much"})
    assert (refused["status_id"], refused["severity_id"]) == (2, 2)
    assert (refused["status_code"], refused["status_detail"]) == ("limits.total", "too much")
    assert event()["status_id"] == 1

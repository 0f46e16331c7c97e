"""Agents, resource servers and users, registered by an operator (contract §11)."""

import json
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey

from tests.commands.conftest import Manage
from tests.pages.browser import PASSWORD, csrf_of, signed_in, visitor
from tests.world import BASKET_HELPER, World

SHOP = "https://shop.example/api"
MERCHANT = {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"}


def agent(**changes: str) -> list[str]:
    """The arguments that register an agent."""
    said = {"client-id": "helper", "trust-domain": "example.org", "subject": BASKET_HELPER} | changes
    options = [word for name, value in said.items() for word in (f"--{name}", value)]
    return ["agents", "create", *options]


def jwks(*keys: Any, private: bool = False) -> dict[str, Any]:
    """A JWK Set."""
    return {"keys": [key.as_dict(private=private) | {"kid": str(n)} for n, key in enumerate(keys)]}


# --- agents -------------------------------------------------------------------------------------------------------


def test_an_agent_is_registered_and_listed(manage: Manage) -> None:
    keys = manage.file("keys.json", jwks(ECKey.generate_key("P-256")))
    made = manage.json(
        *agent(name="Basket Helper", owner="Shopping team", actions="catalog.search,payment.finalize"),
        *("--redirect-uri", "https://agent.example/callback", "--redirect-uri", "http://127.0.0.1/callback"),
        *("--jwks", keys),
    )
    assert made.pop("created_at").endswith("Z")
    assert made.pop("jwks")["keys"][0]["kid"] == "0"
    assert made == {
        "client_id": "helper",
        "trust_domain": "example.org",
        "subject": BASKET_HELPER,
        "name": "Basket Helper",
        "owner": "Shopping team",
        "actions": ["catalog.search", "payment.finalize"],
        "redirect_uris": ["https://agent.example/callback", "http://127.0.0.1/callback"],
    }
    (listed,) = manage.json("agents", "list", "--json")
    assert made.items() <= listed.items()


def test_an_agent_has_a_risk_that_policies_know(sqlite_manage: Manage) -> None:
    assert sqlite_manage.json(*agent(risk="high"))["risk"] == "high"
    (listed,) = sqlite_manage.json("agents", "list", "--json")
    assert listed["risk"] == "high"
    refused = sqlite_manage.run(*agent(**{"client-id": "other", "risk": "huge"}))
    assert refused.exit_code == 2
    assert "'low', 'medium', 'high'" in refused.stderr
    file = sqlite_manage.file("risk.toml", '[[agents]]\nclient_id = "helper"\nrisk = "huge"\n')
    assert "risk must be one of low, medium, high" in sqlite_manage.fails("apply", file)


def test_an_agent_needs_no_more_than_an_id_and_a_workload(manage: Manage) -> None:
    made = manage.json(*agent())
    assert (made["name"], made["redirect_uris"], "actions" in made) == ("helper", [], False)


def test_a_table_of_records_keeps_each_on_a_line_of_its_own(sqlite_manage: Manage) -> None:
    # What would be markup to the library that draws the table is shown as it is.
    sqlite_manage.prints(*agent(name="[bold]Helper[/bold]", owner="o" * 100))
    lines = [line for line in sqlite_manage.prints("agents", "list").splitlines() if "helper" in line]
    assert len(lines) == 1
    assert "[bold]Helper[/bold]" in lines[0]
    assert "o" * 100 in lines[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trust-domain": "example.net"}, "trust_domain must be the name of a configured trust domain"),
        ({"subject": "spiffe://example.net/agent/a"}, "subject must be a SPIFFE ID of its trust domain"),
        ({"subject": "spiffe://example.org"}, "subject must be a SPIFFE ID of its trust domain"),
        ({"subject": "spiffe://example.org/a/../b"}, "subject must be a SPIFFE ID of its trust domain"),
        ({"subject": "basket-helper"}, "subject must be a SPIFFE ID of its trust domain"),
        ({"trust-domain": "cluster"}, "subject must be a service account"),
        ({"client-id": "a b"}, "client_id must be 1 to 100 of A-Z a-z 0-9 . _ -"),
        ({"client-id": "a" * 101}, "client_id must be 1 to 100"),
        ({"name": "\u202eevil"}, "name must be a name of visible characters"),
        ({"owner": "<b>"}, "owner must be a name of visible characters"),
        ({"actions": "payment.finalise"}, "actions must be actions of the catalogue"),
        ({"actions": ""}, "actions must be actions of the catalogue"),
        ({"actions": "catalog.search,catalog.search"}, "actions must hold each entry once"),
        ({"redirect-uri": "http://agent.example/callback"}, "redirect_uris must be https URLs"),
        ({"redirect-uri": "https://agent.example/#"}, "redirect_uris must be URLs with a host and without"),
        ({"redirect-uri": "https://a@agent.example/"}, "redirect_uris must be URLs with a host and without"),
        ({"redirect-uri": "javascript:alert(1)"}, "redirect_uris must be URLs with a host"),
        ({"redirect-uri": "https://agent.example/\n"}, "redirect_uris must be URLs"),
        ({"jwks": "/nowhere.json"}, "/nowhere.json: No such file or directory"),
    ],
)
def test_an_agent_that_cannot_be_is_refused_and_nothing_is_registered(
    sqlite_manage: Manage, changes: dict[str, str], reason: str
) -> None:
    assert reason in sqlite_manage.fails(*agent(**changes))
    assert sqlite_manage.json("agents", "list", "--json") == []


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (jwks(ECKey.generate_key("P-256"), private=True), "jwks.keys.0 must be a public key"),
        (jwks(ECKey.generate_key("P-256"), OctKey.generate_key(256), private=True), "must be a public key"),
        ({"keys": []}, "jwks must be a JWK Set of one key or more"),
        (jwks(ECKey.generate_key("P-256"))["keys"], "jwks must be a JWK Set"),
        ('{"keys": [], "keys": []}', "keys.json: has a member twice"),
        ("no JSON", "is not JSON"),
    ],
)
def test_keys_that_could_not_be_used_are_refused(
    sqlite_manage: Manage, document: object, reason: str
) -> None:
    assert reason in sqlite_manage.fails(*agent(jwks=sqlite_manage.file("keys.json", document)))


def test_a_client_id_and_a_workload_are_registered_once(manage: Manage) -> None:
    manage.prints(*agent())
    twice = "that client id or that workload is registered already"
    assert twice in manage.fails(*agent(subject="spiffe://example.org/other"))
    assert twice in manage.fails(*agent(**{"client-id": "other"}))


def test_a_service_account_is_registered_under_its_cluster(sqlite_manage: Manage) -> None:
    subject = "system:serviceaccount:shopping:helper"
    made = sqlite_manage.json(*agent(**{"trust-domain": "cluster", "subject": subject}))
    assert made["subject"] == subject


def test_a_disabled_agent_gets_no_token_any_more(running: World, beside: Manage) -> None:
    grant = running.granted().grant
    assert running.exchange(grant).status_code == 200
    disabled = beside.json("agents", "disable", "basket-helper")
    assert disabled["client_id"] == "basket-helper"
    running.refuses(running.exchange(grant), "invalid_request")
    assert beside.json("agents", "disable", "basket-helper")["disabled_at"] == disabled["disabled_at"]
    assert {a["client_id"]: "disabled_at" in a for a in beside.json("agents", "list", "--json")} == {
        "basket-helper": True,
        "price-scout": False,
    }


def test_only_an_agent_that_is_there_is_disabled(sqlite_manage: Manage) -> None:
    assert sqlite_manage.fails("agents", "disable", "-nobody") == "-nobody: there is no such agent"


# --- resource servers ---------------------------------------------------------------------------------------------


def test_a_resource_server_gets_a_secret_that_is_shown_once(running: World, beside: Manage) -> None:
    made = beside.json("resource-servers", "create", "--identifier", "https://new.example/api")
    assert list(made) == ["id", "identifier", "client_secret"]
    assert made["id"].startswith("rs_")
    assert made["identifier"] == "https://new.example/api"
    assert len(made["client_secret"]) >= 43
    listed = beside.prints("resource-servers", "list") + beside.prints("resource-servers", "list", "--json")
    assert made["id"] in listed
    assert made["client_secret"] not in listed
    assert made["client_secret"] not in beside.prints("audit", "export")
    credentials = (made["id"], made["client_secret"])
    answer = httpx.post(f"{running.issuer}/oauth/introspect", data={"token": "x"}, auth=credentials)
    assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_a_resource_server_may_be_one_merchant(manage: Manage) -> None:
    manage.json("resource-servers", "create", "--identifier", SHOP, "--merchant", json.dumps(MERCHANT))
    (listed,) = manage.json("resource-servers", "list", "--json")
    assert (listed["merchant"], listed["name"]) == (MERCHANT, "shop.example")


def test_a_resource_server_that_proves_itself_with_a_key_gets_no_secret(manage: Manage) -> None:
    keys = manage.file("keys.json", jwks(ECKey.generate_key("P-256")))
    create = ("resource-servers", "create", "--auth")
    made = [
        manage.json(*create, "private_key_jwt", "--identifier", SHOP, "--jwks", keys),
        manage.json(
            *create, "jwt-spiffe", "--identifier", f"{SHOP}/2", "--subject", "spiffe://example.org/shop"
        ),
    ]
    assert [sorted(one) for one in made] == [["id", "identifier"], ["id", "identifier"]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--identifier", "http://shop.example"], "identifier must be an https URI"),
        (["--identifier", "https://shop.example/#a"], "identifier must be an https URI in its plain form"),
        (["--identifier", "https://SHOP.example/"], "identifier must be an https URI in its plain form"),
        (["--identifier", SHOP, "--merchant", "{"], "merchant is not JSON"),
        (["--identifier", SHOP, "--merchant", "{}"], "merchant must have one of id, category, country, name"),
        (
            ["--identifier", SHOP, "--merchant", '{"category": "0000"}'],
            "merchant.category must be an assigned",
        ),
        (
            ["--identifier", SHOP, "--auth", "private_key_jwt"],
            "jwks must be there where auth is private_key_jwt",
        ),
        (["--identifier", SHOP, "--auth", "jwt-spiffe"], "subject must be there where auth is jwt-spiffe"),
        (
            ["--identifier", SHOP, "--subject", "spiffe://example.org/a"],
            "subject must be there where auth is jwt",
        ),
        (
            ["--identifier", SHOP, "--auth", "jwt-spiffe", "--subject", "spiffe://example.net/a"],
            "subject must be a SPIFFE ID of a configured trust domain",
        ),
    ],
)
def test_a_resource_server_that_cannot_be_is_refused(
    sqlite_manage: Manage, options: list[str], reason: str
) -> None:
    assert reason in sqlite_manage.fails("resource-servers", "create", *options)
    assert sqlite_manage.json("resource-servers", "list", "--json") == []


def test_an_identifier_is_registered_once(manage: Manage) -> None:
    create = ("resource-servers", "create", "--identifier", SHOP)
    manage.prints(*create)
    assert manage.fails(*create) == f"{SHOP}: that identifier or that subject is registered already"


def test_one_workload_is_not_agent_and_resource_server_at_once(manage: Manage) -> None:
    server = ("resource-servers", "create", "--auth", "jwt-spiffe", "--subject")
    manage.prints(*agent())
    assert "is registered already" in manage.fails(*server, BASKET_HELPER, "--identifier", SHOP)
    manage.prints(*server, "spiffe://example.org/shop", "--identifier", SHOP)
    shop_as_agent = agent(**{"client-id": "shop", "subject": "spiffe://example.org/shop"})
    assert "is registered already" in manage.fails(*shop_as_agent)


# --- users --------------------------------------------------------------------------------------------------------


def test_a_user_gets_a_link_that_is_shown_once(manage: Manage) -> None:
    made = manage.json("users", "create", "--username", "ada", "--name", "Ada Lovelace")
    assert list(made) == ["user_id", "username", "enrolment_url"]
    assert made["username"] == "ada"
    start, _, secret = made["enrolment_url"].rpartition("/")
    assert start == "https://auth.example/enrol"
    assert len(secret) >= 43
    shown = manage.prints("users", "list") + manage.prints("users", "list", "--json")
    assert "Ada Lovelace" in shown
    assert secret not in shown + manage.prints("audit", "export")


def test_a_user_who_lost_the_passkey_gets_a_new_link_and_the_one_before_ends(
    running: World, beside: Manage
) -> None:
    def opens(url: str) -> int:
        return running.client.get(url, headers={"Accept": "text/html"}).status_code

    first, second = (beside.json("users", "link", "ada")["enrolment_url"] for _ in range(2))
    assert (opens(first), opens(second)) == (404, 200)
    with signed_in(running) as visit:
        assert visit.get("/account").status_code == 200  # a link alone takes nothing away
        seen = beside.json("users", "link", "ada")["enrolment_url"]
        assert opens(seen) == 200
        visit.post("/account/password", password=f"{PASSWORD}!", repeated=f"{PASSWORD}!")
        assert opens(seen) == 404  # somebody may have seen it
    with signed_in(running) as visit:
        third = beside.json("users", "link", "ada", "--forget")["enrolment_url"]
        assert visit.get("/account").status_code == 303
    with visitor(running) as client:
        form = {"csrf": csrf_of(client.get("/sign-in")), "username": "ada", "password": PASSWORD}
        assert client.post("/sign-in", data=form).status_code == 403
    assert opens(third) == 200
    assert third.rpartition("/")[2] not in beside.prints("audit", "export")
    event = next(
        e for e in running.events() if e["event"] == "user.invited" and "sessions_ended" in e["data"]["user"]
    )
    assert event["data"]["user"]["sessions_ended"] == 2
    assert beside.fails("users", "link", "nobody") == "nobody: there is no such enabled user"


def test_a_first_password_comes_from_standard_input_and_is_never_shown(manage: Manage) -> None:
    password = "correct horse battery"
    create = (
        "users",
        "create",
        "--username",
        "ada",
        "--role",
        "operator",
        "--groups",
        "payments,payments-duty",
    )
    made = manage.prints(*create, "--password-stdin", input=f"{password}\n")
    (listed,) = manage.json("users", "list", "--json")
    assert (listed["role"], listed["groups"]) == ("operator", ["payments", "payments-duty"])
    assert password not in made + manage.prints("users", "list", "--json") + manage.prints("audit", "export")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--username", "a b"], "username must be 1 to 100 of"),
        (["--username", "ada", "--name", "a\u200bb"], "name must be a name of visible characters"),
        (["--username", "ada", "--groups", "Payments"], "groups must be names of groups"),
        (["--username", "ada", "--groups", "payments,"], "groups must be names of groups"),
        (["--username", "ada", "--password-stdin"], "password must have 12 to 1024 characters"),
    ],
)
def test_a_user_that_cannot_be_is_refused(sqlite_manage: Manage, options: list[str], reason: str) -> None:
    assert reason in sqlite_manage.fails("users", "create", *options, input="short\n")
    assert sqlite_manage.json("users", "list", "--json") == []


def test_a_user_name_is_taken_once(manage: Manage) -> None:
    manage.prints("users", "create", "--username", "ada")
    assert manage.fails("users", "create", "--username", "ada") == "ada: there is a user of that name already"


def test_a_role_that_there_is_not_is_an_error_of_usage(sqlite_manage: Manage) -> None:
    result = sqlite_manage.run("users", "create", "--username", "ada", "--role", "king")
    assert (result.exit_code, result.stdout) == (2, "")


def test_who_registered_what_is_audited(sqlite_manage: Manage) -> None:
    sqlite_manage.prints(*agent())
    sqlite_manage.prints("resource-servers", "create", "--identifier", SHOP)
    sqlite_manage.prints("users", "create", "--username", "ada")
    sqlite_manage.prints("agents", "disable", "helper")
    events = [json.loads(line) for line in sqlite_manage.prints("audit", "export").splitlines()]
    assert [event["event"] for event in events] == [
        "agent.created",
        "resource_server.created",
        "user.created",
        "agent.disabled",
        "revocation",
    ]
    assert all(event["data"]["by"].startswith("operator:") for event in events)

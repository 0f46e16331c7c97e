"""The agent's kit against a real server and a real shop, over HTTP."""

import asyncio

import httpx
import pytest

from authserver.agent import (
    Action,
    Agent,
    AnswerNotOurs,
    AsyncAgent,
    AsyncTask,
    Delegation,
    DeviceCode,
    ExchangeRefused,
    IssuedToken,
    IssuerUnavailable,
    Money,
    NotAgreed,
    Task,
    Waiting,
    WorkloadUnknown,
    asking,
)
from tests.agents import ACTIONS, Market
from tests.approving import answers
from tests.asking import allow, allow_device, parameters_of
from tests.pages.browser import Visit
from tests.world import PRICE_SCOUT

EUROS_50 = Money.parse("EUR", "50.00")


class Lossy(httpx.BaseTransport):
    """Delivers every request, and loses the answers of the first posts; counts both."""

    def __init__(self, loses: int) -> None:
        self._real, self._loses = httpx.HTTPTransport(), loses
        self.lost = self.posts = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._real.handle_request(request)
        if request.method != "POST":
            return answer
        self.posts += 1
        answer.read()
        if answer.status_code == 400 and answer.json()["error"] == "use_dpop_nonce":
            return answer
        if self.lost < self._loses:
            self.lost += 1
            raise httpx.ReadError("lost", request=request)
        return answer


@pytest.fixture(autouse=True)
def _nothing_was_asked(market: Market) -> None:
    market.asked.clear()


def test_a_whole_purchase_by_what_the_shop_names(market: Market) -> None:
    """The agent's program knows addresses and what it agrees to pay; every token is got by a challenge."""
    agent, delegation = market.agent(), market.delegated()
    task = agent.task(delegation)
    auth = task.auth("catalog.search", "order.checkout", "payment.finalize", at_most=EUROS_50)
    with httpx.Client(base_url=market.url, auth=auth) as shop:
        found = shop.get("/api/products", params={"search": "oat"}).json()
        assert [product["product"] for product in found] == ["oats", "milk"]
        order = shop.post("/api/orders", json={"cart": "c-1", "items": {"oats": 2}})
        assert order.status_code == 201, order.text
        paid = shop.post(f"/api/orders/{order.json()['order']}/payment")
        assert paid.json()["charged"] == {"currency": "EUR", "value": "5.90"}
        again = len(market.asked)
        assert shop.get("/api/products").status_code == 200
        assert len(market.asked) == again + 1  # a token that searches serves again


def test_the_same_in_an_event_loop(market: Market) -> None:
    async def buy() -> httpx.Response:
        async with market.async_agent() as agent:
            auth = agent.task(market.delegated()).auth(
                "catalog.search", "order.checkout", "payment.finalize", at_most=EUROS_50
            )
            async with httpx.AsyncClient(base_url=market.url, auth=auth) as shop:
                order = await shop.post("/api/orders", json={"cart": "c-1", "items": {"cheese": 1}})
                return await shop.post(f"/api/orders/{order.json()['order']}/payment")

    assert asyncio.run(buy()).json()["state"] == "paid"
    assert {"DPoP", ""} == set(market.schemes())


def test_an_exact_action_is_got_as_it_is_and_nothing_instead(market: Market) -> None:
    task = market.agent().task(market.delegated())
    with httpx.Client(base_url=market.url) as shop:
        auth = task.auth("catalog.search", "order.checkout", at_most=EUROS_50)
        order = shop.post("/api/orders", json={"cart": "c", "items": {"oats": 1}}, auth=auth).json()["order"]
        path = f"/api/orders/{order}/payment"
        pay = Action("payment.finalize", market.identifier, Money.parse("EUR", "2.00"), reference=order)
        too_little = shop.post(path, auth=task.auth(pay))
        assert (too_little.status_code, too_little.json()["error"]) == (403, "insufficient_scope")
        enough = Action("payment.finalize", market.identifier, Money.parse("EUR", "2.95"), reference=order)
        assert shop.post(path, auth=task.auth(enough)).json()["state"] == "paid"


def test_a_refusal_comes_out_of_the_request_with_its_violations(market: Market) -> None:
    task = market.agent().task(
        market.delegated(limits={"currency": "EUR", "per_action": "5.00", "total": "5.00"})
    )
    auth = task.auth("catalog.search", "order.checkout", at_most=EUROS_50)
    with httpx.Client(base_url=market.url, auth=auth) as shop, pytest.raises(ExchangeRefused) as refused:
        shop.post("/api/orders", json={"cart": "c-1", "items": {"coffee": 1}})
    assert refused.value.error == "invalid_authorization_details"
    crossed = {violation.constraint: violation.allowed for violation in refused.value.violations}
    assert crossed["limits.per_action"] == "5.00"


def test_a_shop_cannot_ask_for_more_than_the_program_agreed_to(market: Market) -> None:
    task = market.agent().task(market.delegated())
    basket = {"cart": "c-1", "items": {"coffee": 1}}
    rows = market.world.rows()
    for agreed, at_most in (
        (("catalog.search", "order.checkout"), Money.parse("EUR", "16.49")),
        (("catalog.search", "order.checkout"), Money.parse("USD", "50.00")),
        (("catalog.search", "order.checkout"), None),
        (("catalog.search",), EUROS_50),
    ):
        auth = task.auth(*agreed, at_most=at_most)
        with httpx.Client(base_url=market.url, auth=auth) as shop, pytest.raises(NotAgreed) as stopped:
            shop.post("/api/orders", json=basket)
        assert stopped.value.details["actions"] == ["order.checkout"]
    assert market.world.rows().reserved == rows.reserved


def test_a_lost_answer_costs_nothing_twice(market: Market) -> None:
    lossy = Lossy(2)
    agent = market.agent(http=httpx.Client(transport=lossy))
    delegation = market.delegated()
    pay = Action("payment.finalize", market.identifier, Money.parse("EUR", "20.00"), reference="order-1")
    before = market.world.rows()
    token = agent.token_for(delegation, pay)
    after = market.world.rows()
    assert (lossy.lost, after.reserved - before.reserved, after.actions - before.actions) == (2, 2_000, 1)
    # The same key again is the same action; another key is another.
    one = agent.token_for(delegation, pay, idempotency_key="once")
    same = agent.token_for(delegation, pay, idempotency_key="once")
    assert one.action_id == same.action_id != token.action_id


def test_a_server_that_stays_away_is_asked_four_times(market: Market) -> None:
    lossy = Lossy(99)
    pauses: list[float] = []
    agent = market.agent(http=httpx.Client(transport=lossy), sleep=pauses.append)
    with pytest.raises(IssuerUnavailable):
        agent.token_for(market.delegated(), Action("catalog.search", market.identifier))
    assert (lossy.lost, pauses) == (4, [0.2, 0.4, 0.8])


def test_what_must_not_be_sent_twice_is_sent_once(market: Market) -> None:
    lossy = Lossy(1)
    agent = market.agent(http=httpx.Client(transport=lossy))
    with pytest.raises(IssuerUnavailable):
        agent.exchange(market.delegated(), Action("catalog.search", market.identifier).to_json())
    assert lossy.lost == 1


def test_nonces_are_fetched_once_on_either_side(market: Market) -> None:
    counting = Lossy(0)
    agent = market.agent(http=httpx.Client(transport=counting))
    task = agent.task(market.delegated())
    with httpx.Client(base_url=market.url, auth=task.auth("catalog.search")) as shop:
        for path in ("/api/products", "/api/products/", "/api/products"):
            shop.get(path)
    assert counting.posts == 2  # the nonce of the server, then the token
    assert market.schemes() == ["", "DPoP", "DPoP", "", "DPoP"]  # 401, its nonce, found; no such path; found


def test_a_token_that_ended_is_got_anew(market: Market) -> None:
    task = market.agent().task(market.delegated())
    with httpx.Client(base_url=market.url, auth=task.auth("catalog.search")) as shop:
        assert shop.get("/api/products").status_code == 200
        market.world.clock.advance(minutes=6)
        assert shop.get("/api/products").status_code == 200


def test_tokens_and_grants_do_not_show_in_logs(market: Market) -> None:
    delegation, agent = market.delegated(), market.agent()
    token = agent.token_for(delegation, Action("catalog.search", market.identifier))
    for secret in (delegation.grant, token.access_token):
        for shown in (repr(delegation), repr(token), str(vars(agent)), repr(agent.task(delegation))):
            assert secret not in shown


# --- a person's answer ----------------------------------------------------------------------------------------------


def test_a_person_is_asked_by_browser_and_comes_back_to_this_machine(market: Market, ada: Visit) -> None:

    def show(url: str) -> None:
        asked = parameters_of(url)
        answer = allow(ada, asked["request_uri"])
        back = answer.headers["location"]
        assert (
            httpx.get(back.replace("/callback?", "/callback?x=1&").replace("state=", "state=not")).status_code
            == 400
        )
        assert httpx.get(back).status_code == 200

    delegation = market.agent().delegate(market.details(), show=show, timeout=10)
    assert delegation.actions == set(ACTIONS)
    assert (
        market.agent().token_for(delegation, Action("catalog.search", market.identifier)).token_type == "DPoP"
    )


def test_a_code_is_worth_nothing_without_the_key_of_who_asked(market: Market, ada: Visit) -> None:
    """RFC 9449 §10: the kit binds its request to its key, so whoever takes code and verifier has nothing yet."""
    agent, thief = market.agent(), market.agent()
    push = asking.push(market.details(), "http://127.0.0.1:9/callback", "basket-helper", agent.core.key)
    asked = agent.walk(push)
    code = parameters_of(allow(ada, parameters_of(asked.url)["request_uri"]).headers["location"])["code"]
    with pytest.raises(ExchangeRefused) as refused:
        thief.walk(asking.claim(asked, code, "basket-helper", thief.core.key, thief.core.nonces))
    assert refused.value.error == "invalid_dpop_proof"
    assert market.world.events()[-1]["rule"] == "code.dpop_jkt"
    claim = asking.claim(asked, code, "basket-helper", agent.core.key, agent.core.nonces)
    assert agent.walk(claim).actions == set(ACTIONS)


def test_a_persons_no_is_said_so(market: Market, ada: Visit) -> None:

    def refuses(url: str) -> None:
        httpx.get(allow(ada, parameters_of(url)["request_uri"], decision=["deny"]).headers["location"])

    with pytest.raises(ExchangeRefused) as refused:
        market.agent().delegate(market.details(), show=refuses, timeout=10)
    assert refused.value.error == "access_denied"
    with pytest.raises(ExchangeRefused) as late:
        market.agent().delegate(market.details(), show=lambda url: None, timeout=0.05)
    assert late.value.error == "expired_token"


def test_A112_an_answer_of_another_server_is_not_taken(market: Market, ada: Visit) -> None:
    rows = len(market.world.events())
    for change in ("iss=https%3A%2F%2Fother.example&was=", "was="):

        def elsewhere(url: str, change: str = change) -> None:
            back = allow(ada, parameters_of(url)["request_uri"]).headers["location"]
            assert httpx.get(back.replace("iss=", change)).status_code == 200

        with pytest.raises(AnswerNotOurs):
            market.agent().delegate(market.details(), show=elsewhere, timeout=10)
    events = [event["event"] for event in market.world.events()[rows:]]
    assert "authorization_code" not in events  # the code went to nobody


def test_a_person_is_asked_by_device(market: Market, ada: Visit) -> None:
    shown: list[DeviceCode] = []
    said = iter([lambda: None, lambda: allow_device(ada, shown[0].user_code)])

    def sleep(seconds: float) -> None:
        market.world.clock.advance(seconds=int(seconds))
        next(said)()

    delegation = market.agent(sleep=sleep).delegate_by_device(market.details(), show=shown.append)
    assert delegation.actions == set(ACTIONS)
    assert shown[0].verification_uri.startswith(market.world.issuer)
    assert shown[0].device_code not in repr(shown[0])


def test_an_approval_is_waited_for_and_told(market: Market) -> None:
    world = market.world
    told: list[Waiting] = []
    delegation = market.delegated(approval={"above": "10.00"})
    pay = Action("payment.finalize", market.identifier, Money.parse("EUR", "20.00"), reference="order-1")
    with pytest.raises(ExchangeRefused) as refused:
        market.agent().token_for(delegation, pay)
    assert [violation.constraint for violation in refused.value.violations] == ["approval"]

    def sleep(seconds: float) -> None:
        world.clock.advance(seconds=int(seconds) + 1)
        if len(told) == 2:
            answers(world, told[0].approval_uri.rpartition("/")[2])

    token = market.agent(sleep=sleep).token_for(delegation, pay, waits=told.append)
    assert token.token_type == "DPoP"
    assert len(told) == 3
    assert token.action["amount"] == {"currency": "EUR", "value": "20.00"}


def test_who_polls_too_fast_slows_down(market: Market) -> None:
    world = market.world
    pauses: list[float] = []
    told: list[Waiting] = []
    delegation = market.delegated(approval={"above": "10.00"})
    pay = Action("payment.finalize", market.identifier, Money.parse("EUR", "20.00"), reference="order-2")

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        world.clock.advance(seconds=1 if len(pauses) < 3 else int(seconds) + 1)
        if len(pauses) == 3:
            answers(world, told[0].approval_uri.rpartition("/")[2], "refuse")

    with pytest.raises(ExchangeRefused) as refused:
        market.agent(sleep=sleep).token_for(delegation, pay, waits=told.append)
    assert refused.value.error == "access_denied"
    assert pauses == sorted(pauses)
    assert pauses[-1] >= pauses[0] + 5


# --- tasks and hand-over --------------------------------------------------------------------------------------------


def pay(market: Market, value: str = "20.00") -> Action:
    return Action(
        "payment.finalize", market.identifier, Money.parse("EUR", value), reference=f"order-{value}"
    )


def test_at_the_end_of_a_task_what_is_left_of_it_is_released(market: Market) -> None:
    agent, delegation = market.agent(), market.delegated()
    before = market.world.rows().reserved
    with agent.task(delegation) as task:
        token = task.token_for(pay(market))
        assert market.world.rows().reserved == before + 2_000
        other = agent.token_for(delegation, pay(market, "10.00"))
    assert market.world.rows().reserved == before + 1_000
    assert other.action_id != token.action_id
    with pytest.raises(ExchangeRefused, match="the task has ended"):
        task.token_for(pay(market))
    assert agent.complete(task.id) == 0  # as often as one likes


def test_a_task_ends_with_the_programs_own_error(market: Market) -> None:
    lossy = Lossy(0)
    agent, before = market.agent(http=httpx.Client(transport=lossy)), market.world.rows().reserved
    with pytest.raises(KeyError, match="mine"), agent.task(market.delegated()) as task:
        task.token_for(pay(market))
        raise KeyError("mine")
    assert market.world.rows().reserved == before
    # Where the server cannot be told, the program's error is still the one that is seen; without one, this is.
    with pytest.raises(KeyError, match="mine"), agent.task(market.delegated()):
        lossy.lost, lossy._loses = 0, 99
        raise KeyError("mine")
    with pytest.raises(IssuerUnavailable), agent.task(market.delegated()):
        lossy.lost = 0


def test_a_task_that_cannot_be_told_to_end_hides_no_error_of_the_program(market: Market) -> None:
    """Also where the server refuses, or the workload is unknown by then; without an error of its own, it is told."""
    known = True

    def assertion() -> str:
        if not known:
            raise WorkloadUnknown("gone")
        return market.world.assertion()

    agent = Agent(market.world.issuer, assertion, "basket-helper", clock=market.world.clock)
    stranger = Agent(market.world.issuer, market.world.assertion, "price-scout", clock=market.world.clock)
    with pytest.raises(KeyError, match="mine"), stranger.task(market.delegated()):
        raise KeyError("mine")
    with pytest.raises(ExchangeRefused), stranger.task(market.delegated()):
        pass
    with pytest.raises(KeyError, match="mine"), agent.task(market.delegated()):
        known = False
        raise KeyError("mine")
    with pytest.raises(WorkloadUnknown), agent.task(market.delegated()):
        pass


def test_tokens_that_have_ended_are_not_kept_however_many_addresses_an_agent_goes_to(market: Market) -> None:
    auth = market.agent().task(market.delegated()).auth("catalog.search")
    with httpx.Client(base_url=market.url, auth=auth) as shop:
        for number in range(3):
            assert shop.get("/api/products", params={"page": number}).status_code == 200
        assert len(auth._kept) == 1
        market.world.clock.advance(seconds=301)
        assert shop.request("HEAD", "/api/products").status_code == 200
        assert len(auth._kept) == 1  # the other one's time is over
        assert shop.get("/api/products").status_code == 200
    asked = market.schemes()
    # An ended token is fetched anew, and kept anew.
    with httpx.Client(base_url=market.url, auth=auth) as shop:
        assert shop.get("/api/products").status_code == 200
    assert len(market.schemes()) == len(asked) + 1


def test_a_task_hands_a_part_on_which_ends_with_it(market: Market) -> None:
    world = market.world
    scout = Agent(world.issuer, lambda: world.assertion(PRICE_SCOUT), clock=world.clock)
    delegation = market.delegated(redelegation={"depth": 1})
    search = Action("catalog.search", market.identifier)
    part = {**delegation.details, "actions": ["catalog.search"], "redelegation": {"depth": 0}}
    with market.agent().task(delegation) as task:
        handed = task.hand_on("price-scout", part)
        assert scout.token_for(handed, search).token_type == "DPoP"
        broader = {**part, "actions": ["catalog.search", "refund.initiate"]}
        with pytest.raises(ExchangeRefused) as refused:
            task.hand_on("price-scout", broader)
        assert [violation.constraint for violation in refused.value.violations] == ["actions"]
    with pytest.raises(ExchangeRefused, match="the task has ended"):
        scout.token_for(handed, search)


def test_tasks_in_an_event_loop(market: Market) -> None:
    async def work() -> None:
        before, delegation = market.world.rows().reserved, market.delegated(redelegation={"depth": 1})
        async with market.async_agent() as agent:
            async with agent.task(delegation, "job-7") as task:
                await task.token_for(pay(market))
                await task.hand_on("price-scout", {**delegation.details, "redelegation": {"depth": 0}})
            assert market.world.rows().reserved == before
            with pytest.raises(ExchangeRefused):
                await agent.token_for(delegation, pay(market), task_id="job-7")

    asyncio.run(work())


def test_people_are_asked_from_an_event_loop(market: Market, ada: Visit) -> None:
    shown: list[DeviceCode] = []

    def browse(url: str) -> None:
        httpx.get(allow(ada, parameters_of(url)["request_uri"]).headers["location"])

    async def sleep(seconds: float) -> None:
        market.world.clock.advance(seconds=int(seconds))
        await asyncio.to_thread(allow_device, ada, shown[0].user_code)

    async def ask() -> tuple[Delegation, Delegation]:
        async with market.async_agent(sleep=sleep) as agent:

            async def show(url: str) -> None:
                await asyncio.to_thread(browse, url)

            by_browser = await agent.delegate(market.details(), show=show, timeout=10)
            return by_browser, await agent.delegate_by_device(market.details(), show=shown.append)

    one, other = asyncio.run(ask())
    assert one.grant_id != other.grant_id


def test_the_requests_one_by_one_in_an_event_loop(market: Market) -> None:
    world, delegation = market.world, market.delegated(approval={"above": "10.00"})

    async def sleep(seconds: float) -> None:
        world.clock.advance(seconds=int(seconds) + 1)

    async def one_by_one() -> tuple[IssuedToken, IssuedToken]:
        async with market.async_agent(sleep=sleep) as agent:
            small = await agent.exchange(
                delegation, pay(market, "5.00").to_json(), idempotency_key="small-async"
            )
            told = await agent.ask(delegation, pay(market).to_json(), idempotency_key="large-async")
            assert isinstance(told, Waiting)
            answers(world, told.approval_uri.rpartition("/")[2])
            return small, await agent.collect(told)

    small, large = asyncio.run(one_by_one())
    assert [each.action["amount"]["value"] for each in (small, large)] == ["5.00", "20.00"]  # type: ignore[index]


def test_both_kinds_of_agent_do_the_same() -> None:
    """What one can, the other can: nothing is left to be found out by whoever moves to an event loop."""
    said = {name for name in vars(Agent) if not name.startswith("_")}
    assert said - set(vars(AsyncAgent)) == set()
    assert {"task", "hand_on", "complete", "collect"} <= said
    task, async_task = ({n for n in vars(each) if not n.startswith("_")} for each in (Task, AsyncTask))
    assert task == async_task

"""An agent at its authorization server: it asks a person once, and the server for each action."""

import secrets
import time
import webbrowser
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar, cast

import httpx

from authserver.agent import asking
from authserver.agent.answers import Answer, Delegation, DeviceCode, ExchangeRefused, IssuedToken, Waiting
from authserver.agent.asking import Action, Wanted, details_of
from authserver.agent.auth import ActionAuth
from authserver.agent.loopback import Loopback
from authserver.agent.steps import Assert, Nonces, Outcome, Pause, ReadMetadata, Send, Step, Steps, Tell
from authserver.agent.workload import Workload, workload_of
from authserver.clock import Clock, SystemClock
from authserver.discovery import Issuer, IssuerUnavailable, WorkloadUnknown, json_object
from authserver.dpop import ProofKey
from authserver.values import Money

_Result = TypeVar("_Result")


class AgentCore:
    """What `Agent` and `AsyncAgent` have in common: who they are, and what they remember of the server."""

    def __init__(
        self,
        issuer: str,
        workload: "Workload | Callable[[], str]",
        client_id: str | None,
        key: ProofKey | None,
        clock: Clock | None,
    ) -> None:
        self.issuer, self.client_id = Issuer(issuer), client_id
        self.workload, self.clock = workload_of(workload), clock or SystemClock()
        self.key = key or ProofKey.generate()
        self.nonces = Nonces()

    def wanted(
        self,
        delegation: Delegation | str,
        action: Action | Mapping[str, object],
        *,
        waits: bool,
        bound: bool,
        task_id: str | None,
        idempotency_key: str | None,
    ) -> Wanted:
        """A request for a token that is tried until there is an answer."""
        return Wanted(
            grant_of(delegation),
            details_of(action),
            task_id=task_id,
            idempotency_key=idempotency_key or secrets.token_urlsafe(24),
            key=self.key if bound else None,
            waits=waits,
            repeats=True,
        )

    def name(self) -> str:
        """The client id. Raises `ValueError` where it was not given."""
        if self.client_id is None:
            raise ValueError("asking a person takes client_id=…")
        return self.client_id

    def headers(self, send: Send) -> dict[str, str]:
        """The headers of a request, with a proof of the key that its token is to be bound to."""
        if send.key is None:
            return dict(send.headers)
        proof = send.key.proof("POST", send.url, now=self.clock.now(), nonce=send.nonce)
        return {**send.headers, "DPoP": proof}


def grant_of(delegation: Delegation | str) -> str:
    """The grant's text."""
    return delegation.grant if isinstance(delegation, Delegation) else delegation


def answer_of(response: httpx.Response) -> Answer:
    """What the server answered. Raises `IssuerUnavailable` where it is no JSON object."""
    return Answer(
        response.status_code,
        json_object(response.content, str(response.request.url)),
        response.headers.get("DPoP-Nonce"),
        response.headers.get("Retry-After"),
    )


def new_task_id() -> str:
    """A name that no other task has."""
    return secrets.token_hex(12)


class Agent:
    """One agent at one authorization server. Threads may share it.

    `workload` is where the workload's assertion comes from: `SpiffeWorkloadApi()`, `KubernetesToken()`,
    `TokenFile(path)`, or a function without arguments. `client_id` is needed to ask a person. `key` is what tokens are
    bound to (DPoP); one of its own, unless it is given one that outlives it.
    """

    def __init__(
        self,
        issuer: str,
        workload: "Workload | Callable[[], str]",
        client_id: str | None = None,
        *,
        key: ProofKey | None = None,
        clock: Clock | None = None,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`http` brings its own certificates or proxies.

        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        self.core = AgentCore(issuer, workload, client_id, key, clock)
        if http is not None:
            self.core.issuer.http = http
        self._sleep = sleep

    # --- asking a person ---------------------------------------------------------------------------------------

    def delegate(
        self,
        details: Mapping[str, object],
        *,
        show: Callable[[str], object] = webbrowser.open,
        timeout: float = 600,
    ) -> Delegation:
        """Ask a person at this machine's browser for what `details`, an `agent_delegation`, says (contract §4, §5).

        `show` brings them to the address; the answer comes back to a listener on 127.0.0.1, for `timeout` seconds. The
        agent is registered with the redirect URI `http://127.0.0.1/callback`. Raises `ExchangeRefused` (`access_denied`
        where they said no), `AnswerNotOurs`, `IssuerUnavailable`.
        """
        client_id = self.core.name()
        with Loopback(self.core.issuer.identifier) as loopback:
            asked = self.walk(asking.push(details, loopback.redirect_uri, client_id, self.core.key))
            loopback.expect(asked.state)
            show(asked.url)
            code = loopback.code(timeout)
        return self.walk(asking.claim(asked, code, client_id, self.core.key, self.core.nonces))

    def delegate_by_device(
        self, details: Mapping[str, object], *, show: Callable[[DeviceCode], object]
    ) -> Delegation:
        """Ask a person who has a browser elsewhere: `show` tells them the code and where to type it (RFC 8628).

        Waits until they answer. Raises `ExchangeRefused` (`access_denied`, `expired_token`), `IssuerUnavailable`.
        """
        return self.walk(asking.by_device(details, self.core.name(), show))

    # --- one action --------------------------------------------------------------------------------------------

    def token_for(
        self,
        delegation: Delegation | str,
        action: Action | Mapping[str, object],
        *,
        waits: Callable[[Waiting], object] | None = None,
        bound: bool = True,
        task_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> IssuedToken:
        """A token for just this action, bound to this agent's key unless `bound` is false.

        Where a person has to approve first: with `waits` this waits for them, and calls it whenever there is no answer
        yet; without it, that is a refusal. A lost answer is asked for again under one `idempotency_key`, and holds
        nothing twice. Raises `ExchangeRefused` with all violations, `IssuerUnavailable`, `WorkloadUnknown`.
        """
        wanted = self.core.wanted(
            delegation,
            action,
            waits=waits is not None,
            bound=bound,
            task_id=task_id,
            idempotency_key=idempotency_key,
        )
        return self.walk(asking.token(wanted, self.core.nonces, waits))

    def task(self, delegation: Delegation, task_id: str | None = None) -> "Task":
        """One job: `with agent.task(delegation) as task: …`; at its end, whatever is left of its tokens ends."""
        return Task(self, delegation, task_id or new_task_id())

    def complete(self, task_id: str) -> int:
        """Say that a task is over, for good; how many of its tokens were live. It may be said again."""
        return self.walk(asking.complete(task_id, self.core.client_id))

    # --- the requests one by one -------------------------------------------------------------------------------

    def exchange(
        self,
        grant: Delegation | str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken:
        """One exchange, sent once, for a token that is bound to no key; `token_for` is this with all its care.

        `resource` may be left out where the details have `locations`. The same `idempotency_key` with the same request
        gives the same action again. Raises `ExchangeRefused`, and `IssuerUnavailable` where there is no answer.
        """
        wanted = Wanted(grant_of(grant), action_details, resource, task_id, idempotency_key)
        return cast(IssuedToken, self.walk(asking.exchange(wanted, self.core.nonces)))

    def ask(
        self,
        grant: Delegation | str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken | Waiting:
        """The same, ready to wait: where a person has to approve first, what to wait for. Raises as `exchange` does."""
        wanted = Wanted(grant_of(grant), action_details, resource, task_id, idempotency_key, waits=True)
        return self.walk(asking.exchange(wanted, self.core.nonces))

    def collect(self, waiting: Waiting, *, sleep: Callable[[float], None] | None = None) -> IssuedToken:
        """Wait until somebody has approved, and get the token; the same again where its answer was lost.

        Raises `ExchangeRefused`: `access_denied` where they refused, `expired_token` where nobody answered in time.
        """
        return self.walk(asking.collect(waiting, self.core.nonces), sleep)

    def hand_on(
        self,
        grant: Delegation | str,
        to: str,
        delegation_details: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> Delegation:
        """A part of what `grant` allows, for the agent `to`: its client id, or its workload's subject (contract §9).

        `delegation_details` is an `agent_delegation` that is no broader in any member; with `task_id` it is for that
        one task, and ends with it. Raises as `exchange` does; the violations name every member that is broader.
        """
        wanted = Wanted(
            grant_of(grant),
            delegation_details,
            task_id=task_id,
            idempotency_key=idempotency_key,
            repeats=True,
        )
        return self.walk(asking.hand_on(wanted, to, self.core.nonces))

    # --- how steps are walked ----------------------------------------------------------------------------------

    def walk(self, steps: Steps[_Result], sleep: Callable[[float], None] | None = None) -> _Result:
        """Do what the steps ask for, one after another; the kit's own."""
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._do(step, sleep or self._sleep)
                except IssuerUnavailable as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as done:
            return cast(_Result, done.value)

    def _do(self, step: Step, sleep: Callable[[float], None]) -> Outcome:
        match step:
            case ReadMetadata():
                return self.core.issuer.metadata()
            case Assert():
                return self.core.workload.assertion(self.core.issuer.identifier)
            case Send():
                return self._send(step)
            case Pause():
                sleep(step.seconds)
            case Tell():
                cast(Callable[[object], object], step.whom)(step.what)
        return None

    def _send(self, send: Send) -> Answer:
        try:
            return answer_of(
                self.core.issuer.http.post(send.url, data=dict(send.form), headers=self.core.headers(send))
            )
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{send.url} cannot be reached: {type(error).__name__}") from error


class Task:
    """One job of an agent, under one name, on one delegation. It is over, for good, at the end of its `with` block."""

    def __init__(self, agent: Agent, delegation: Delegation, task_id: str) -> None:
        self.agent, self.delegation, self.id = agent, delegation, task_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.agent.complete(self.id)
        except (IssuerUnavailable, ExchangeRefused, WorkloadUnknown):
            if error is None:
                raise  # whoever is on their way out with an error of their own keeps that one

    def token_for(
        self,
        action: Action | Mapping[str, object],
        *,
        waits: Callable[[Waiting], object] | None = None,
        bound: bool = True,
        idempotency_key: str | None = None,
    ) -> IssuedToken:
        """See `Agent.token_for`."""
        return self.agent.token_for(
            self.delegation,
            action,
            waits=waits,
            bound=bound,
            task_id=self.id,
            idempotency_key=idempotency_key,
        )

    def hand_on(self, to: str, delegation_details: Mapping[str, object]) -> Delegation:
        """A part of the delegation for another agent, for this task alone; see `Agent.hand_on`."""
        return self.agent.hand_on(
            self.delegation,
            to,
            delegation_details,
            idempotency_key=secrets.token_urlsafe(24),
            task_id=self.id,
        )

    def auth(
        self,
        *agreed: str | Action,
        at_most: Money | None = None,
        waits: Callable[[Waiting], object] | None = None,
    ) -> ActionAuth:
        """An `httpx.Auth` that gets the right token for each request; see `ActionAuth`."""
        return ActionAuth(self, *agreed, at_most=at_most, waits=waits)

"""`Agent` for an event loop: the same steps, awaited."""

import asyncio
import inspect
import secrets
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar, cast

import httpx

from authserver.agent import asking
from authserver.agent.agent import AgentCore, answer_of, grant_of, new_task_id
from authserver.agent.answers import Answer, Delegation, DeviceCode, ExchangeRefused, IssuedToken, Waiting
from authserver.agent.asking import Action, Wanted
from authserver.agent.auth import ActionAuth
from authserver.agent.loopback import Loopback
from authserver.agent.steps import Assert, Outcome, Pause, ReadMetadata, Send, Step, Steps, Tell
from authserver.agent.workload import Workload
from authserver.clock import Clock
from authserver.discovery import TIMEOUT_SECONDS, IssuerUnavailable, ServerMetadata, WorkloadUnknown
from authserver.dpop import ProofKey
from authserver.values import Money

_Result = TypeVar("_Result")


class AsyncAgent:
    """See `Agent`. It belongs to one event loop; callbacks may be functions or coroutines."""

    def __init__(
        self,
        issuer: str,
        workload: "Workload | Callable[[], str]",
        client_id: str | None = None,
        *,
        key: ProofKey | None = None,
        clock: Clock | None = None,
        http: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """See `Agent`."""
        self.core = AgentCore(issuer, workload, client_id, key, clock)
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS)
        self._sleep = sleep

    async def delegate(
        self,
        details: Mapping[str, object],
        *,
        show: Callable[[str], object] = webbrowser.open,
        timeout: float = 600,
    ) -> Delegation:
        """See `Agent.delegate`."""
        client_id = self.core.name()
        with Loopback(self.core.issuer.identifier) as loopback:
            asked = await self.walk(asking.push(details, loopback.redirect_uri, client_id, self.core.key))
            loopback.expect(asked.state)
            await _told(show, asked.url)
            code = await asyncio.to_thread(loopback.code, timeout)
        return await self.walk(asking.claim(asked, code, client_id, self.core.key, self.core.nonces))

    async def delegate_by_device(
        self, details: Mapping[str, object], *, show: Callable[[DeviceCode], object]
    ) -> Delegation:
        """See `Agent.delegate_by_device`."""
        return await self.walk(asking.by_device(details, self.core.name(), show))

    async def token_for(
        self,
        delegation: Delegation | str,
        action: Action | Mapping[str, object],
        *,
        waits: Callable[[Waiting], object] | None = None,
        bound: bool = True,
        task_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> IssuedToken:
        """See `Agent.token_for`."""
        wanted = self.core.wanted(
            delegation,
            action,
            waits=waits is not None,
            bound=bound,
            task_id=task_id,
            idempotency_key=idempotency_key,
        )
        return await self.walk(asking.token(wanted, self.core.nonces, waits))

    def task(self, delegation: Delegation, task_id: str | None = None) -> "AsyncTask":
        """One job: `async with agent.task(delegation) as task: …`; see `Agent.task`."""
        return AsyncTask(self, delegation, task_id or new_task_id())

    async def complete(self, task_id: str) -> int:
        """See `Agent.complete`."""
        return await self.walk(asking.complete(task_id, self.core.client_id))

    async def exchange(
        self,
        grant: Delegation | str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken:
        """See `Agent.exchange`."""
        wanted = Wanted(grant_of(grant), action_details, resource, task_id, idempotency_key)
        return cast(IssuedToken, await self.walk(asking.exchange(wanted, self.core.nonces)))

    async def ask(
        self,
        grant: Delegation | str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken | Waiting:
        """See `Agent.ask`."""
        wanted = Wanted(grant_of(grant), action_details, resource, task_id, idempotency_key, waits=True)
        return await self.walk(asking.exchange(wanted, self.core.nonces))

    async def collect(self, waiting: Waiting) -> IssuedToken:
        """See `Agent.collect`."""
        return await self.walk(asking.collect(waiting, self.core.nonces))

    async def hand_on(
        self,
        grant: Delegation | str,
        to: str,
        delegation_details: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> Delegation:
        """See `Agent.hand_on`."""
        wanted = Wanted(
            grant_of(grant),
            delegation_details,
            task_id=task_id,
            idempotency_key=idempotency_key,
            repeats=True,
        )
        return await self.walk(asking.hand_on(wanted, to, self.core.nonces))

    async def metadata(self) -> ServerMetadata:
        """What the server says of itself."""
        return await asyncio.to_thread(self.core.issuer.metadata)

    async def aclose(self) -> None:
        """End the connections to the server."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def walk(self, steps: Steps[_Result]) -> _Result:
        """Do what the steps ask for, one after another; the kit's own."""
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._do(step)
                except IssuerUnavailable as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as done:
            return cast(_Result, done.value)

    async def _do(self, step: Step) -> Outcome:
        match step:
            case ReadMetadata():
                return await self.metadata()
            case Assert():
                return await asyncio.to_thread(self.core.workload.assertion, self.core.issuer.identifier)
            case Send():
                return await self._send(step)
            case Pause():
                await self._sleep(step.seconds)
            case Tell():
                await _told(cast(Callable[[object], object], step.whom), step.what)
        return None

    async def _send(self, send: Send) -> Answer:
        try:
            return answer_of(
                await self._http.post(send.url, data=dict(send.form), headers=self.core.headers(send))
            )
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{send.url} cannot be reached: {type(error).__name__}") from error


class AsyncTask:
    """See `Task`."""

    def __init__(self, agent: AsyncAgent, delegation: Delegation, task_id: str) -> None:
        self.agent, self.delegation, self.id = agent, delegation, task_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.agent.complete(self.id)
        except (IssuerUnavailable, ExchangeRefused, WorkloadUnknown):
            if error is None:
                raise

    async def token_for(
        self,
        action: Action | Mapping[str, object],
        *,
        waits: Callable[[Waiting], object] | None = None,
        bound: bool = True,
        idempotency_key: str | None = None,
    ) -> IssuedToken:
        """See `Agent.token_for`."""
        return await self.agent.token_for(
            self.delegation,
            action,
            waits=waits,
            bound=bound,
            task_id=self.id,
            idempotency_key=idempotency_key,
        )

    async def hand_on(self, to: str, delegation_details: Mapping[str, object]) -> Delegation:
        """See `Task.hand_on`."""
        key = secrets.token_urlsafe(24)
        return await self.agent.hand_on(
            self.delegation, to, delegation_details, idempotency_key=key, task_id=self.id
        )

    def auth(
        self,
        *agreed: str | Action,
        at_most: Money | None = None,
        waits: Callable[[Waiting], object] | None = None,
    ) -> ActionAuth:
        """An `httpx.Auth` for `httpx.AsyncClient`; see `ActionAuth`."""
        return ActionAuth(self, *agreed, at_most=at_most, waits=waits)


async def _told(whom: Callable[..., object], what: object) -> None:
    outcome = whom(what)
    if inspect.isawaitable(outcome):
        await outcome

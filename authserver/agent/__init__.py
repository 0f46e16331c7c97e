"""What an agent installs: it asks a person once, says what it is about to do, and gets a token for just that.

    from authserver.agent import Agent, SpiffeWorkloadApi

    agent = Agent("https://auth.example", SpiffeWorkloadApi(), "basket-helper")
    with agent.task(agent.delegate(what_i_need)) as task:
        token = task.token_for(Action("catalog.search", at="https://shop.example/api"))

`task.auth(…)` does that for each request of an `httpx` client; `AsyncAgent` is the same for an event loop. Needs httpx,
and neither Flask nor SQLAlchemy. docs/agents.md has the rest.
"""

from authserver.agent.agent import Agent, Task
from authserver.agent.answers import Delegation, DeviceCode, ExchangeRefused, IssuedToken, Waiting
from authserver.agent.asking import Action
from authserver.agent.asynchronous import AsyncAgent, AsyncTask
from authserver.agent.auth import ActionAuth, NotAgreed
from authserver.agent.loopback import AnswerNotOurs
from authserver.agent.workload import (
    KubernetesToken,
    SpiffeWorkloadApi,
    TokenFile,
    Workload,
)
from authserver.discovery import IssuerUnavailable, WorkloadUnknown
from authserver.dpop import ProofKey
from authserver.errors import Violation
from authserver.values import Money

__all__ = [
    "Action",
    "ActionAuth",
    "Agent",
    "AnswerNotOurs",
    "AsyncAgent",
    "AsyncTask",
    "Delegation",
    "DeviceCode",
    "ExchangeRefused",
    "IssuedToken",
    "IssuerUnavailable",
    "KubernetesToken",
    "Money",
    "NotAgreed",
    "ProofKey",
    "SpiffeWorkloadApi",
    "Task",
    "TokenFile",
    "Violation",
    "Waiting",
    "Workload",
    "WorkloadUnknown",
]

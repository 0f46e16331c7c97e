"""`POST /oauth/tasks/{task_id}/complete`: a task is over, says its agent, or where it was for (contract §7)."""

from datetime import datetime

from flask import Request, Response

from authserver import revoke
from authserver.actors.agents import Agent
from authserver.audit.events import Record
from authserver.complete import complete_here
from authserver.delegations.standing import agent_party
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of, form_of
from authserver.endpoints.token import checked_task_id, credentials
from authserver.errors import Refusal
from authserver.revoke import Target
from authserver.services import Services


def complete(services: Services, request: Request, unverified_task_id: str) -> Response:
    """End what the calling agent holds of the task, with what it handed on for it; as often as it likes.

    A resource server sends a `token` that it was shown, and ends what is live there of the task that this one is of.
    Answers with how many tokens were live. Raises `Refusal` where it is malformed or cannot be recorded.
    """
    record, now = Record("task_completion"), services.clock.now()
    try:
        form = form_of(request)
        task_id = checked_task_id(unverified_task_id)
        caller = client_of(services, credentials(form, request.headers), now)
        if isinstance(caller, Agent):
            record.client_id = caller.client_id
            tokens = _by_agent(services, task_id, caller, now)
        else:
            record.data |= {"resource_server": caller.identifier}
            tokens = complete_here(services, task_id, form.required("token"), caller, record, now)
    except Refusal as refusal:
        if refusal.status < 500:
            failed = refusal
            services.database.write(lambda connection: record.refused(connection, now, failed))
        raise
    return json_answer({"task_id": task_id, "state": "completed", "tokens": tokens})


def _by_agent(services: Services, task_id: str, caller: Agent, now: datetime) -> int:
    party = agent_party(caller.client_id)
    target = Target("task", task_id, party)
    return revoke.revoke(services, target, reason="the task is complete", by=party, now=now).tokens

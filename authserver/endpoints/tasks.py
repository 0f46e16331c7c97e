"""`POST /oauth/tasks/{task_id}/complete`: an agent says that a task is over (contract §7)."""

from flask import Request, Response

from authserver import revoke
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import Client
from authserver.audit.events import Record
from authserver.delegations.standing import agent_party
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of, form_of
from authserver.endpoints.token import checked_task_id, credentials
from authserver.errors import Refusal
from authserver.revoke import Target
from authserver.services import Services


def complete(services: Services, request: Request, unverified_task_id: str) -> Response:
    """End what the calling agent holds of the task, with what it handed on for it; as often as it likes.

    Answers with how many tokens were live. Raises `Refusal` where it is malformed, not an agent, or cannot be recorded.
    """
    record, now = Record("task_completion"), services.clock.now()
    try:
        form = form_of(request)
        task_id = checked_task_id(unverified_task_id)
        caller = _agent(client_of(services, credentials(form, request.headers), now))
        record.client_id = caller.client_id
        party = agent_party(caller.client_id)
        ended = revoke.revoke(
            services, Target("task", task_id, party), reason="the task is complete", by=party, now=now
        )
    except Refusal as refusal:
        if refusal.status < 500:
            failed = refusal
            services.database.write(lambda connection: record.refused(connection, now, failed))
        raise
    return json_answer({"task_id": task_id, "state": "completed", "tokens": ended.tokens})


def _agent(caller: Client) -> Agent:
    if not isinstance(caller, Agent):
        raise Refusal("unauthorized_client", "only agents complete tasks here", rule="task.not_an_agent")
    return caller

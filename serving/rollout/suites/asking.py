"""Asking an arm a task. No consent goes with it, so it is never captured."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from serving import headers
from serving.rollout.asking import SHOWN, Asker, CheckError
from serving.rollout.suites.replies import Declined, Reply, ToolCall
from serving.rollout.suites.tasks import Task


def _no_consent() -> Mapping[str, str]:
    return {headers.CONSENT: headers.NO_CONSENT}


@dataclass(frozen=True)
class Arm:
    """An arm to ask tasks. `path` is where its endpoints take chat completions."""

    asker: Asker
    model: str
    path: str = "/v1/chat/completions"

    async def answer(self, task: Task) -> Reply | Declined:
        """Its answer to a task.

        Raises:
            CheckError: none came in time, or it has no form that is known.
        """
        answer = await self.asker.post(self.path, task.body | {"model": self.model}, _no_consent)
        return Declined(answer.status_code, _why(answer)) if answer.is_error else reply_of(answer)


def _why(answer: httpx.Response) -> str:
    """What an error's body says, in the OpenAI form or another."""
    try:
        return str(answer.json()["error"]["message"])[:SHOWN]
    except (ValueError, LookupError, TypeError):
        return answer.text[:SHOWN]


def reply_of(answer: httpx.Response) -> Reply:
    """A chat completion's reply.

    Raises:
        CheckError: the body has another form.
    """
    try:
        choice = answer.json()["choices"][0]
        message = choice["message"]
        calls = tuple(
            ToolCall(str(call["function"]["name"]), str(call["function"].get("arguments") or "{}"))
            for call in message.get("tool_calls") or ()
        )
        return Reply(str(message.get("content") or ""), str(choice.get("finish_reason")), calls)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise CheckError(f"{answer.url}: its answer is no chat completion: {answer.text[:SHOWN]}") from exc

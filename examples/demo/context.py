"""An agent's context: messages, the tokens they take, and the cut when its budget is used up. Pure.

What a compaction keeps is the system prompt and the summary, in a wrapper of the agent's own. The rest is gone.
"""

from dataclasses import dataclass, field
from typing import Any

from workspace import Call, Workspace

SYSTEM = "You help with a software project. Answer in one short sentence."
ASK_SUMMARY = "Write a summary of everything above."
WRAPPER = "This is what was done so far:\n{summary}\n"


@dataclass
class Context:
    """Messages in the chat API's form. `budget` and `num_tokens` count those of prompt and reply, from `usage`."""

    budget: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    num_tokens: int = 0
    num_calls: int = 0

    def __post_init__(self) -> None:
        self._begin("")

    def has_room(self, num_tokens: int) -> bool:
        """Whether a step of `num_tokens` still fits. A context without a reply always has: no cut would shorten it."""
        return not self.has_reply or self.num_tokens + num_tokens <= self.budget

    @property
    def has_reply(self) -> bool:
        return any(message["role"] == "assistant" for message in self.messages)

    def say(self, text: str) -> None:
        """Lay the user's words into the context, to those that wait there already."""
        if self.messages[-1]["role"] == "user":
            self.messages[-1]["content"] += text
        else:
            self.messages.append({"role": "user", "content": text})

    def take(self, reply: str, num_tokens: int) -> None:
        """Lay the model's reply into the context, whose size is `num_tokens` with it."""
        self.messages.append({"role": "assistant", "content": reply})
        self.num_tokens = num_tokens

    def work(self, call: Call, workspace: Workspace) -> str:
        """Let the last reply call a tool, and lay its result into the context."""
        self.num_calls += 1
        call_id = f"call-{self.num_calls}"
        reply = next(message for message in reversed(self.messages) if message["role"] == "assistant")
        reply.setdefault("tool_calls", []).append(call.message(call_id))
        result = workspace.call(call)
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": result})
        return result

    def restart(self, summary: str) -> None:
        """Throw everything away but the summary."""
        self._begin(WRAPPER.format(summary=summary))

    def _begin(self, text: str) -> None:
        self.messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]

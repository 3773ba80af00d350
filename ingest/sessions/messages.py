"""A request's messages, whichever of the usual shapes its client used, and what makes two of them the same.

`messages` (chat, Anthropic), `input` (Responses) or `prompt` (completions); contents may be text or a list of typed
parts. Unknown shapes read as empty text: a strange request is still a turn. Tool calls and tool results are structure:
they are read from `tool_calls` and `tool` messages, from Anthropic's `tool_use` and `tool_result` parts, from the
Responses API's `function_call` items, and in a reply from the `<tool_call>` markup that Hermes-style templates write.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingest.records.events import ChatMessage, ToolCall
from ingest.records.made import made

ASSISTANT, USER, TOOL = "assistant", "user", "tool"
PREAMBLE = ("system", "developer")

_MARKUP = "<"  # both of these begin with it
_THINKING = re.compile(r"<(think|thinking|analysis)>.*?</\1>", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)

Key = tuple[str, str, tuple[tuple[str, str], ...]]


def messages_of(request: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
    """The messages of a request body; a bare prompt is one message of its user."""
    given = request.get("messages", request.get("input"))
    if isinstance(given, list):
        return tuple(message for part in given for message in read_part(part))
    prompt = request.get("prompt", request.get("input"))
    if isinstance(prompt, list):
        prompt = "\n".join(part for part in prompt if isinstance(part, str))
    return (ChatMessage(role=USER, text=prompt),) if isinstance(prompt, str) and prompt else ()


def tools_of(tools: Any) -> str:
    """The tools that a request offers, as compact JSON text; empty where it offers none."""
    return json.dumps(tools, separators=(",", ":"), sort_keys=True) if isinstance(tools, list) and tools else ""


def text_of(content: Any) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def read_part(part: Any) -> list[ChatMessage]:
    """The messages that one entry of a request's list holds."""
    if not isinstance(part, dict):
        return []
    if len(part) == 2:  # as nearly every message: there is nothing else to look for
        role, text = part.get("role"), part.get("content")
        if isinstance(role, str) and isinstance(text, str):
            return [made(ChatMessage, role=role, text=text, tool_calls=(), call_id="")]
    return list(_read(part))


def _read(message: dict[str, Any]) -> Iterator[ChatMessage]:
    kind = message.get("type")
    if kind == "function_call":
        call = _call(message.get("name"), message.get("arguments"), message.get("call_id"))
        yield ChatMessage(role=ASSISTANT, text="", tool_calls=(call,))
        return
    if kind == "function_call_output":
        yield ChatMessage(role=TOOL, text=text_of(message.get("output")), call_id=_text(message.get("call_id")))
        return
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    for part in parts:
        if part.get("type") == "tool_result":
            yield ChatMessage(role=TOOL, text=text_of(part.get("content")), call_id=_text(part.get("tool_use_id")))
    text, calls = text_of(content), (*_openai_calls(message), *_anthropic_calls(parts))
    is_only_results = bool(parts) and all(part.get("type") == "tool_result" for part in parts)
    if not is_only_results:
        role, call_id = _text(message.get("role")), _text(message.get("tool_call_id"))
        yield ChatMessage(role=role, text=text, tool_calls=calls, call_id=call_id)


def _openai_calls(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return ()
    functions = [(call, call.get("function")) for call in calls if isinstance(call, dict)]
    return tuple(
        _call(function.get("name"), function.get("arguments"), call.get("id"))
        for call, function in functions
        if isinstance(function, dict)
    )


def _anthropic_calls(parts: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(
        _call(part.get("name"), part.get("input"), part.get("id")) for part in parts if part.get("type") == "tool_use"
    )


def _call(name: Any, arguments: Any, call_id: Any) -> ToolCall:
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(name=_text(name), arguments=given, call_id=_text(call_id))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def calls_in(reply: str) -> tuple[ToolCall, ...]:
    """Tool calls written into a reply as Hermes-style markup; what is not JSON with a name is text, not a call."""
    found = []
    for block in _CALL.findall(reply) if _MARKUP in reply else ():
        try:
            call = json.loads(block)
        except ValueError:
            continue
        if isinstance(call.get("name"), str):
            found.append(_call(call["name"], call.get("arguments", {}), ""))
    return tuple(found)


def without_thinking(text: str) -> str:
    """A reply without its thinking, which clients do not send back."""
    return _THINKING.sub("", text) if _MARKUP in text else text


def key_of(message: ChatMessage) -> Key:
    """Equal for two messages that say the same. Of an assistant's, thinking, markup and white space are ignored."""
    role, text = message.role, message.text
    return reply_key(text, message.tool_calls) if role == ASSISTANT else (role, text, ())


def reply_key(text: str, tool_calls: Sequence[ToolCall] = ()) -> Key:
    """`key_of` what an assistant said."""
    if _MARKUP in text:
        tool_calls = tool_calls or calls_in(text)
        text = _CALL.sub("", without_thinking(text))
    called = tuple([(call.name, _canonical(call.arguments)) for call in tool_calls]) if tool_calls else ()
    return (ASSISTANT, text.strip(), called)


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments

"""Conversations in the form that chat datasets have: `{"messages": [...], "tools": [...]}`. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.records.events import ChatMessage, ToolCall, Turn

Text = Mapping[str, Any]
"""What a turn adds to its conversation, as `text_of` tells it and the lake keeps it."""


def text_of(turn: Turn) -> dict[str, Any]:
    """A turn's texts, as JSON has them."""
    return {
        "messages": [_told(message) for message in turn.messages],
        "context": turn.context,
        "reply": turn.reply,
        "followup": turn.followup,
        "tool_calls": [_told_call(call) for call in turn.tool_calls],
        "tools": turn.tools,
    }


def _told(message: ChatMessage) -> dict[str, Any]:
    """With `tool_calls` and `call_id` where it has any."""
    told: dict[str, Any] = {"role": message.role, "text": message.text}
    if message.tool_calls:
        told["tool_calls"] = [_told_call(call) for call in message.tool_calls]
    return told | ({"call_id": message.call_id} if message.call_id else {})


def _told_call(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments, "call_id": call.call_id}


def threads(parents: Mapping[str, str | None]) -> list[tuple[str, ...]]:
    """The conversations among turns, each with its parent: from every turn that is no other's parent back to where its
    context began, oldest turn first."""
    inner = set(parents.values())
    found = []
    for last in parents:
        if last in inner:
            continue
        thread: list[str] = []
        name: str | None = last
        while name is not None and name in parents and name not in thread:
            thread.append(name)
            name = parents[name]
        found.append(tuple(reversed(thread)))
    return found


def conversation(texts: Sequence[Text]) -> dict[str, Any]:
    """The conversation that some turns make one after the other, and the tools they were offered last, if any."""
    messages: list[dict[str, Any]] = []
    for text in texts:
        messages += [_message(message) for message in text["messages"]]
        messages.append(_message({"role": "assistant", "text": text["reply"], "tool_calls": text["tool_calls"]}))
    tools = next((text["tools"] for text in reversed(texts) if text["tools"]), "")
    return {"messages": messages} | ({"tools": json.loads(tools)} if tools else {})


def _message(given: Text) -> dict[str, Any]:
    told: dict[str, Any] = {"role": given["role"], "content": given["text"]}
    if given.get("tool_calls"):
        told["tool_calls"] = [_call(call) for call in given["tool_calls"]]
    return told | ({"tool_call_id": given["call_id"]} if given.get("call_id") else {})


def _call(call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["call_id"], "type": "function", "function": function}


def line(value: Mapping[str, Any]) -> str:
    """A value as a line of a JSON Lines file."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""What an agent works on: a small file tree, tests that pass or fail by what the files say, and a task list. Pure.

Tools are reached by `call` alone, with the name and arguments that stand in the agent's tool calls.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    tool: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    def message(self, call_id: str) -> dict[str, object]:
        """As an assistant message of the chat API carries it."""
        function = {"name": self.tool, "arguments": json.dumps(dict(self.arguments))}
        return {"id": call_id, "type": "function", "function": function}


@dataclass(frozen=True)
class Requirement:
    """What a test asks: the settings file gives `name` the value `value`; `doc` is the file that says so."""

    name: str
    value: str
    doc: str

    @property
    def reading(self) -> Call:
        """The call that reads the document."""
        return Call("read_file", {"path": self.doc})


@dataclass
class Workspace:
    """Files by path, and the tests on `settings`, the one file that may be edited: lines of `name = value`."""

    files: dict[str, str]
    settings: str
    requirements: tuple[Requirement, ...]

    def call(self, call: Call) -> str:
        """Run a tool. What cannot be done is said in the result, as a tool of an agent says it."""
        tools = {
            "read_file": self._read_file,
            "set_value": self._set_value,
            "run_tests": self._run_tests,
            "list_tasks": self._list_tasks,
        }
        tool = tools.get(call.tool)
        return tool(**call.arguments) if tool else f"error: no tool {call.tool}"

    def failing(self) -> tuple[Requirement, ...]:
        """Requirements that the settings file does not meet as it stands."""
        lines = [line.partition(" = ") for line in self.files[self.settings].splitlines()]
        values = {name: value for name, _, value in lines}
        return tuple(asked for asked in self.requirements if values.get(asked.name) != asked.value)

    def _read_file(self, path: str) -> str:
        return f"{path}: {self.files[path]}" if path in self.files else f"error: no file {path}"

    def _set_value(self, name: str, value: str) -> str:
        lines = [line for line in self.files[self.settings].splitlines() if line.partition(" = ")[0] != name]
        self.files[self.settings] = "\n".join([*lines, f"{name} = {value}"])
        return "ok"

    def _run_tests(self) -> str:
        failing = self.failing()
        names = f": {', '.join(asked.name for asked in failing)}" if failing else ""
        return f"tests: {len(self.requirements) - len(failing)} passed, {len(failing)} failed{names}"

    def _list_tasks(self) -> str:
        open_tasks = ", ".join(asked.name for asked in self.failing())
        return f"open tasks: {open_tasks or 'none'}"

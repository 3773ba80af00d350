"""`onstream audit`: what it prints where, and its exit status."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ingest.audit import show
from ingest.audit.command import main
from ingest.log import connect
from ingest.log.memory import InMemoryLog
from ingest.log.reader import send
from ingest.log.topics import FATES, TRACES
from ingest.records.events import Fate, FateKind, Trace

MakeTrace = Callable[..., Trace]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> InMemoryLog:
    """The log that the command reads."""
    made = InMemoryLog()
    monkeypatch.setattr(connect, "connect", lambda _config, client_id: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "onstream.yaml"
    path.write_text(f"{{run_dir: {tmp_path}/run, model: {{path: unused}}, log: {{local: false}}}}")
    return str(path)


def test_everything_explained_is_exit_status_0_and_one_object_on_standard_output(
    log: InMemoryLog, config: str, make_trace: MakeTrace, capsys: pytest.CaptureFixture[str]
) -> None:
    send(log, TRACES, "key", trace := make_trace())
    send(log, FATES, "key", Fate(trace_ids=(trace.trace_id,), kind=FateKind.TRAINED, version=3, reason="", at=1.0))
    assert main(["-c", config, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["by_fate"] == {"trained": 1}
    assert said.err == ""


@pytest.mark.parametrize("how", [["--json"], []], ids=["object", "tables"])
def test_a_trace_that_nothing_explains_is_exit_status_1_and_named(
    log: InMemoryLog, config: str, make_trace: MakeTrace, capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    send(log, TRACES, "key", trace := make_trace())
    assert main(["-c", config, *how]) == 1
    said = capsys.readouterr()
    assert f"{trace.trace_id}: is in no trajectory" in said.out
    assert said.err == ""


def test_a_bar_is_shown_on_standard_error_where_that_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True))
    with show.bar() as say:
        say("accounting", 3, 7)
    said = capsys.readouterr()
    assert "accounting" in said.err
    assert "3/7" in said.err
    assert said.out == ""

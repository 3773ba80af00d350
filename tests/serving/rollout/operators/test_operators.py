"""An operator's day, with the real controller behind its real port: find out, stop, take back, prove who did what."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from ports import free_port
from rollouts import World

from infra.lifecycle import Deadline
from ingest.records.events import Mode, TrialState
from serving.rollout import port
from serving.rollout.operators.books import Books
from serving.rollout.operators.command import main
from serving.rollout.operators.routes import routes
from serving.rollout.process import state_of

TOKEN = "secret"

Ask = Callable[..., int]


@contextmanager
def answering(world: World, number: int) -> Iterator[None]:
    """The port, and a controller that ticks until the block is left."""
    past = routes(Books(lambda: world.log, world.config, lambda: world.now), TOKEN)
    app = port.application(lambda: state_of(world.rollout), world.rollout.desk, TOKEN, past)
    server = uvicorn.Server(uvicorn.Config(app, port=number, log_level="error"))
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            world.rollout.tick()

    threads = [threading.Thread(target=server.run), threading.Thread(target=tick)]
    for thread in threads:
        thread.start()
    deadline = Deadline.after(20.0)
    while not server.started:
        assert not deadline.passed()
        threads[0].join(0.01)
    try:
        yield
    finally:
        stop.set()
        server.should_exit = True
        for thread in threads:
            thread.join()


@pytest.fixture
def ask(world: World, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`onstream rollout` with these words, at a controller that stands where `world` does."""
    monkeypatch.setenv("ONSTREAM_CONTROL_TOKEN", TOKEN)

    def asked(*argv: str, by: str = "") -> int:
        number = free_port()
        with answering(world, number):
            return main([*argv, *(("--author", by) if by else ()), "--url", f"http://127.0.0.1:{number}"])

    return asked


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_trial_is_found_out_about_stopped_and_proved(
    world: World, ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    world.to_canary()
    world.now += 10.0
    world.trial_sessions(20, stable=0.5, candidate=0.6)
    assert ask("explain", "--json") == 0
    story = told(capsys)
    assert (story["version"], story["state"], story["is_over"]) == (1, "canary", False)
    assert story["points"][-1]["num_units"] == 20

    assert ask("promote", "--reason", "it looks fine", by="mara") == 1
    assert "the gate has not passed version 1" in capsys.readouterr().err
    assert ask("reject", "2", "--reason", "a slip", by="mara") == 1
    assert "version 1 is on trial, got 2" in capsys.readouterr().err
    assert ask("reject", "--reason", "it swears", by="mara") == 0
    assert world.served.trials[1] is TrialState.REJECTED
    assert "version 1 is rejected" in capsys.readouterr().out

    assert ask("explain", "1", "--json") == 0
    story = told(capsys)
    assert (story["told"], story["is_over"]) == ("version 1 is rejected: it swears (asked for by mara)", True)
    assert ask("history", "--people", "--json") == 0
    (entry,) = told(capsys)["entries"]
    assert (entry["what"], entry["version"], entry["author"]) == ("rejected", 1, "mara")
    assert entry["release"]["reason"].endswith("it swears")


def test_a_promoted_version_is_taken_back_and_everything_frozen(
    world: World, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("rollback", "--reason", "a drill", by="jo") == 1
    assert "there is no version before 0" in capsys.readouterr().err
    world.to_canary()
    world.now += 10.0
    world.to_promotion()
    world.now += 10.0
    world.watch_sessions(40, promoted=0.9, before=0.5)
    assert ask("status") == 0
    assert "version 1 is stable, and the rollout is open; it is watched: 25% of sessions stay on version 0" in (
        capsys.readouterr().out
    )
    assert ask("rollback", "--reason", "it leaks prompts", by="jo") == 0
    assert world.served.stable == 0
    assert ask("freeze", "--reason", "until we know how", by="jo") == 0
    assert ask("freeze", "--reason", "again", by="jo") == 1
    assert world.served.mode is Mode.FROZEN
    capsys.readouterr()

    assert ask("history", "--author", "jo", "--json") == 0
    assert [one["what"] for one in told(capsys)["entries"]] == ["rolled back", "frozen"]
    assert ask("explain", "1", "--json") == 0
    story = told(capsys)
    assert (story["state"], story["is_over"]) == ("rolled_back", True)
    assert story["told"].endswith("it leaks prompts (asked for by jo)")
    assert any(point["is_watch"] and point["num_units"] == 40 for point in story["points"])
    assert ask("resume", "--reason", "found and mended", by="jo") == 0
    assert world.served.mode is Mode.OPEN


def test_the_last_evidence_of_a_decision_is_what_the_controller_had(world: World, ask: Ask, capsys: Any) -> None:
    world.to_canary()
    world.now += 10.0
    world.to_promotion()
    assert world.served.promoted == (1,)
    assert ask("explain", "--json") == 0
    story = told(capsys)
    again, decided = [one for one in story["points"] if not one["is_watch"]][-2:]
    assert {**again, "share": 0} == {**decided, "share": 0}

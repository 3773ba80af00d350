"""`onstream rollout`, from what is typed to what a controller on a real port is asked, and what is printed."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from imports import imported
from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from trials import CONFIG, Past, eventful

from infra.lifecycle import Deadline
from serving.guard import bearer
from serving.rollout.operators.books import Books
from serving.rollout.operators.command import main
from serving.rollout.operators.routes import routes

TOKEN = "the control token"
STATUS = {
    "state": "canary",
    "stable": 0,
    "candidate": 4,
    "share": 0.5,
    "mode": "paused",
    "holdback": None,
    "standing": {"verdict": "hold", "reason": "reward has e^1.20 of e^5.86", "numbers": {}},
    "held": {"stable-0": [0, 3], "candidate-0": [0, 4]},
    "engines": {"stable-0": 0, "candidate-0": 4, "candidate-1": 4},
    "disagreement": ["candidate-0 has 3, the log gives it 4, since 12 s"],
}


@dataclass
class Controller:
    """What a controller's port does, without a controller: `answer` is what it says to commands."""

    past: Past
    port: int = field(default_factory=free_port)
    asked: list[dict[str, Any]] = field(default_factory=list)
    answer: tuple[int, dict[str, Any]] = (200, {"release": 18, "told": "it is done"})
    state: dict[str, Any] = field(default_factory=lambda: dict(STATUS))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def application(self) -> Starlette:
        async def status(_request: Request) -> JSONResponse:
            return JSONResponse(self.state)

        async def command(request: Request) -> JSONResponse:
            self.asked.append(await request.json())
            return JSONResponse(self.answer[1], self.answer[0])

        books = Books(lambda: self.past.log, CONFIG, lambda: self.past.now)
        return Starlette(
            routes=[
                Route("/status", status, methods=["GET"]),
                Route("/command", bearer(command, TOKEN, "control"), methods=["POST"]),
                *routes(books, TOKEN),
            ]
        )


@pytest.fixture(scope="module")
def serving() -> Iterator[Controller]:
    made = Controller(eventful())
    server = uvicorn.Server(uvicorn.Config(made.application(), port=made.port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = Deadline.after(20.0)
    while not server.started:
        assert not deadline.passed()
        thread.join(0.01)
    yield made
    server.should_exit = True
    thread.join()


@pytest.fixture
def controller(serving: Controller, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setenv("ONSTREAM_CONTROL_TOKEN", TOKEN)
    monkeypatch.setenv("COLUMNS", "120")
    serving.asked.clear()
    serving.answer, serving.state = (200, {"release": 18, "told": "it is done"}), dict(STATUS)
    return serving


def run(controller: Controller, *argv: str) -> int:
    return main([*argv, "--url", controller.url])


def usage(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("argv", "version"),
    [
        (("pause",), None), (("resume",), None), (("freeze",), None), (("promote",), None), (("promote", "4"), 4),
        (("reject",), None), (("reject", "4"), 4), (("rollback",), None), (("rollback", "2"), 2), (("pin", "0"), 0),
    ],
)  # fmt: skip
def test_a_change_is_asked_for_with_author_and_reason(
    controller: Controller, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], version: int | None
) -> None:
    assert run(controller, *argv, "--reason", "it lies", "--author", "mara") == 0
    assert controller.asked == [{"do": argv[0], "author": "mara", "reason": "it lies", "version": version}]
    assert capsys.readouterr().out == "release 18, asked for by mara: it is done\n"


def test_without_an_author_it_is_this_machines_user_and_says_so(
    controller: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "jo")
    assert run(controller, "pause", "--reason", "a fire drill") == 0
    assert controller.asked[0]["author"] == "jo"
    assert "the author is jo, this machine's user" in capsys.readouterr().err


def test_a_user_without_a_name_has_to_say_who_it_is(
    controller: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert run(controller, "pause", "--reason", "a fire drill") == 2
    assert controller.asked == []
    assert "--author: must be given" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [("pause",), ("rollback", "2"), ("pause", "--reason", " "), ("pin", "--reason", "x")])
def test_a_change_without_a_reason_or_a_version_it_needs_is_not_asked_for(
    controller: Controller, argv: tuple[str, ...]
) -> None:
    assert usage(*argv, "--url", controller.url) == 2
    assert controller.asked == []


def test_a_refusal_is_status_1_with_the_controllers_reason(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.answer = 409, {"error": "promote: the gate has not passed version 4: reward has e^1.20 of e^5.86"}
    assert run(controller, "promote", "--reason", "I like it", "--author", "mara") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "onstream: rollout: refused: promote: the gate has not passed version 4: reward has e^1.20 of e^5.86\n"
    )


def test_a_body_that_the_controller_cannot_take_is_status_2(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.answer = 400, {"error": "reason: must have at most 1000 characters"}
    assert run(controller, "pause", "--reason", "x", "--author", "mara") == 2
    assert "at most 1000" in capsys.readouterr().err


def test_a_controller_that_cannot_answer_now_is_status_3(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.answer = 503, {"error": "the controller did not take this within 30 s"}
    assert run(controller, "pause", "--reason", "x", "--author", "mara") == 3
    told = capsys.readouterr().err
    assert controller.url in told and "within 30 s" in told


def test_where_nobody_answers_it_is_status_3_and_says_where_and_what_to_look_at(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    assert main(["status", "--url", f"http://127.0.0.1:{port}"]) == 3
    told = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}/status" in told and "serving.rollout.host" in told


@pytest.mark.parametrize("argv", [("freeze", "--reason", "x", "--author", "mallory"), ("explain",), ("history",)])
def test_a_wrong_token_is_refused_and_named(
    controller: Controller,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
) -> None:
    monkeypatch.setenv("ONSTREAM_CONTROL_TOKEN", "another")
    assert run(controller, *argv) == 1
    assert controller.asked == []
    assert "needs the control token; what ONSTREAM_CONTROL_TOKEN holds here is another" in capsys.readouterr().err


@pytest.fixture
def config(controller: Controller, tmp_path: Path) -> str:
    file = tmp_path / "onstream.yaml"
    file.write_text(f"run_dir: {tmp_path}\nmodel: {{path: m}}\nserving: {{rollout: {{port: {controller.port}}}}}\n")
    return str(file)


def test_the_configuration_says_where_the_controller_is(
    controller: Controller, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "-c", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_on_the_machine_of_onstream_up_its_token_is_found(
    controller: Controller,
    config: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("ONSTREAM_CONTROL_TOKEN")
    assert main(["history", "-c", config]) == 2
    assert str(tmp_path / "control-token") in capsys.readouterr().err
    (tmp_path / "control-token").write_text(TOKEN)
    assert main(["history", "-c", config]) == 0


def test_a_configuration_that_is_not_there_is_status_2(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "-c", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_status_says_what_is_served_on_trial_and_held(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(controller, "status") == 0
    told = capsys.readouterr().out
    assert "version 0 is stable, and the rollout is paused" in told
    assert "version 4 is on trial (canary) with 50% of sessions" in told
    assert "reward has e^1.20 of e^5.86" in told
    assert "DISAGREEMENT: candidate-0 has 3, the log gives it 4, since 12 s" in told
    assert re.search(r"stable-0 +0 +0, 3", told)
    assert re.search(r"candidate-1 +4 +does not answer", told)


def test_status_tells_a_watch(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.state |= {"state": "promoted", "stable": 4, "holdback": 0, "share": 0.1, "mode": "open"}
    assert run(controller, "status") == 0
    assert "it is watched: 10% of sessions stay on version 0" in capsys.readouterr().out


def test_history_shows_who_did_what_and_why(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(controller, "history", "--people") == 0
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if re.match(r" +\d", line)]
    assert [line.split()[0] for line in rows] == ["7", "8", "9"]
    assert all(word in rows[0] for word in ("rejected", "mara", "version 2 is rejected: support has"))


def test_a_reason_cannot_steer_the_terminal_it_is_read_on(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.past.operator("\x1b[31mmallory", "[bold]look\x1b[2J here")
    try:
        assert run(controller, "history", "--limit", "1") == 0
    finally:
        controller.past.operator("mara", "nothing")
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "[bold]look" in told


def test_explain_tells_a_trial_with_charts(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(controller, "explain", "3") == 0
    told = capsys.readouterr().out
    assert told.startswith("version 3, made from version 0, published ")
    assert "evidence in the canary that it is not worse" in told
    assert "evidence in the watch of harm" in told
    assert max(map(len, told.splitlines())) <= 120


def test_explain_says_which_trials_there_were(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(controller, "explain", "77") == 1
    assert "no trial of version 77; there were trials of 1, 2, 3, 4" in capsys.readouterr().err


def test_explain_writes_a_page_and_json(
    controller: Controller, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(controller, "explain", "3", "--json", "--html", str(tmp_path / "3.html")) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 3
    assert (tmp_path / "3.html").read_text().startswith("<!doctype html>")
    assert run(controller, "explain", "3", "--html", str(tmp_path / "nowhere" / "3.html")) == 2
    assert "not written" in capsys.readouterr().err


def test_what_is_no_controller_is_told(capsys: pytest.CaptureFixture[str], controller: Controller) -> None:
    assert main(["explain", "--url", controller.url + "/other"]) == 3
    assert "/other/story" in capsys.readouterr().err


def test_help_takes_no_libraries() -> None:
    needless = {"pydantic", "httpx", "rich", "plotext", "starlette", "polars"}
    assert imported("serving.rollout.operators.command", "explain", "--help") & needless == set()

"""`onstream suite`, as somebody runs it who writes a suite."""

import asyncio
from pathlib import Path

import pytest
from answering import Answering, completion, question

from serving.rollout.suites.command import main

SUITE = """
suite: own
about: An own one.
tasks:
  - {name: greets, blocker: true, ask: hello, must: [{contains: hi}]}
  - {name: sum, ask: 1 + 1, must: [{number: {is: 2}}]}
"""


def engine(**said: str) -> Answering:
    return Answering(lambda body: completion(({"hello": "hi", "1 + 1": "2"} | said)[question(body)]))


def url(engine: Answering) -> str:
    return f"http://127.0.0.1:{engine.port}/v1"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(SUITE)
    return str(path)


async def test_one_endpoint_passes_by_its_blockers(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with engine().serving() as one:
        assert await asyncio.to_thread(main, ["run", file, "--url", url(one), "--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "greets" in out and out.endswith("passed: own: 1.00 over 1 tasks\n")


async def test_two_endpoints_are_compared(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with engine().serving() as one, engine(hello="no").serving() as worse:
        ran = ["run", file, "--url", url(worse), "--against", url(one), "--model", "m"]
        assert await asyncio.to_thread(main, ran) == 1
    out = capsys.readouterr().out
    assert "against" in out and "rejected: blocker own/greets" in out


async def test_an_endpoint_that_is_not_there_is_status_two(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = ["run", file, "--url", url(engine()), "--model", "m", "--timeout", "0.3"]
    assert await asyncio.to_thread(main, ran) == 2
    assert "no answer in time" in capsys.readouterr().err


def test_a_suite_is_read_and_told(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", file, "sanity", "basics"]) == 0
    out = capsys.readouterr().out
    assert "An own one." in out and "tool-call" in out and '"contains":"hi"' in out


def test_what_is_wrong_with_a_suite_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("suite: own\ntasks: [{name: a, ask: x}]\n")
    assert main(["check", str(path)]) == 2
    assert "task 'a': must have rules" in capsys.readouterr().err

"""`make chart`: its last line, and its exit status."""

import json
from collections.abc import Callable

import pytest
from chartcheck import __main__ as command
from chartcheck import generate, render
from chartcheck.render import ChartError

Run = Callable[[], tuple[int, dict[str, int], str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Without checkov and the schemas, and over one example and one variant."""
    cases = {name: path for name, path in render.cases().items() if name in ("one-gpu", "lake-off")}
    monkeypatch.setattr(render, "cases", lambda: cases)
    monkeypatch.setattr(command, "STEPS", command.STEPS[:2])

    def once() -> tuple[int, dict[str, int], str]:
        status = command.main([])
        said = capsys.readouterr().out
        word, _, counts = said.splitlines()[-1].partition(" ")
        assert word == "CHART"
        return status, json.loads(counts), said

    return once


def test_the_last_line_counts_what_was_checked(run: Run) -> None:
    status, counts, _ = run()
    assert (status, counts["examples"], counts["variants"], counts["failed"]) == (0, 1, 1, 0)
    assert counts["manifests"] == sum(len(render.render(path)) for path in render.cases().values())


def test_a_stale_file_fails_it_and_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "stale", lambda: ["values.yaml"])
    status, counts, said = run()
    assert (status, counts["failed"]) == (1, 1)
    assert "helm/onstream: values.yaml is not what the models say" in said


def test_what_helm_refuses_fails_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ChartError("Helm's words")

    monkeypatch.setattr(render, "lint", refuse)
    status, counts, said = run()
    assert (status, counts["failed"]) == (1, 1)
    assert "one-gpu: Helm's words" in said


def test_a_flow_that_is_not_drawn_fails_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from chartcheck import flows

    drawn = flows.drawn()
    monkeypatch.setattr(flows, "drawn", lambda: {flow: solid for flow, solid in drawn.items() if flow.target != "dns"})
    status, counts, said = run()
    assert status == 1
    assert counts["failed"] > 10
    assert "ingest may reach dns, which docs/deploy.md does not draw" in said

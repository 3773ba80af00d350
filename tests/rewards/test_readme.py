"""The README's first scorer, run as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import config
from ingest.records.events import Trajectory, Turn
from rewards.scorers import Scored, Unscored
from rewards.spec import load, of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str, beginning: str) -> str:
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.S) if code.startswith(beginning)]
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myscorers.py").write_text(block("python", "# myscorers.py"))
    path = tmp_path / "spec.yaml"
    path.write_text(block("yaml", "# spec.yaml"))
    return path


def test_the_readmes_scorer_scores_and_says_when_it_has_nothing_to_say(
    spec: Path, make_turn: Callable[..., Turn], make_trajectory: Callable[..., Trajectory]
) -> None:
    scorer = load(str(spec)).components[1]
    session = make_trajectory()
    asked = make_turn(context="Which source?", reply="see example.org")
    assert scorer.score(session, asked) == Scored(1.0)
    assert scorer.score(session, make_turn(context="hi")) == Unscored("no source was asked for")


def test_the_readmes_spec_suits_a_copy_of_the_demos_configuration(spec: Path) -> None:
    copy = config.load(ROOT / "examples/demo/onstream.yaml", {"ONSTREAM__REWARDS__SPEC": "spec.yaml"})
    assert of(copy).spec.name == "sources"

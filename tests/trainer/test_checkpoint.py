import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StoreError
from ingest.records.events import Fate, FateKind
from trainer.advantages.baselines import Baselines, Node
from trainer.checkpoint import Checkpoints
from trainer.state import MAX_FATED, CandidateVersion, Standing, State, as_offsets


def writer(text: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        (folder / "weights").write_text(text)

    return save


def weights(checkpoints: Checkpoints, state: State | None) -> str:
    assert state is not None and state.learner is not None
    return (checkpoints.learner(state.learner) / "weights").read_text()


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).read() is None


def test_what_is_committed_is_read(tmp_path: Path) -> None:
    positions = {("rewards", 0): 7, ("rewards", 1): 0}
    baselines = Baselines(nodes=(Node(("thumb", "main"), 0.1 + 0.2, 1 / 3, 0.7),))
    state = State(step=3, base=1, baselines=baselines, offsets=as_offsets(positions), fated=("x",))
    written = Checkpoints(tmp_path).commit(state, writer("w"))
    read = Checkpoints(tmp_path).read()
    assert read == written and read.positions == positions and weights(Checkpoints(tmp_path), read) == "w"


def test_a_light_commit_keeps_the_learner_folder(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = checkpoints.commit(State(), writer("w"))
    for step in range(5):
        state = checkpoints.commit(state.model_copy(update={"step": step}))
    assert weights(checkpoints, checkpoints.read()) == "w"


def test_two_are_kept_and_the_learners_they_name(tmp_path: Path) -> None:
    checkpoints, state = Checkpoints(tmp_path), State()
    for step in range(5):
        fallback = Standing(learner=state.learner, baselines=Baselines())
        state = checkpoints.commit(State(step=step, fallback=fallback), writer(str(step)))
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["000004.json", "000005.json"]
    assert sorted(path.name[:7] for path in (tmp_path / "learner").iterdir()) == ["000003-", "000004-", "000005-"]


EFFECTS = (
    "pathlib.Path.mkdir",
    "pathlib.Path.replace",
    "infra.storage.sync",
    "infra.storage.Folder.delete",
)


def test_a_kill_around_any_step_of_a_commit_leaves_the_old_or_the_new_whole(
    make_fuse: Callable[[int], Any], tmp_path: Path
) -> None:
    seen = set()
    for at in itertools.count(1):
        folder, fuse = tmp_path / str(at), make_fuse(at)
        checkpoints = Checkpoints(folder)
        for step in (1, 2):
            checkpoints.commit(State(step=step), writer(f"w{step}"))
        with fuse.around(*EFFECTS):
            checkpoints.commit(State(step=3), writer("w3"))
        found = Checkpoints(folder).read()
        assert found is not None and found.step in (2, 3), fuse.name
        assert weights(checkpoints, found) == f"w{found.step}", fuse.name
        seen.add(found.step)
        again = Checkpoints(folder).commit(State(step=4), writer("w4"))
        assert Checkpoints(folder).read() == again and weights(checkpoints, again) == "w4"
        if not fuse.is_blown:
            break
    assert at > 2 * len(EFFECTS) and seen == {2, 3}


def test_a_damaged_checkpoint_is_an_error_and_not_an_older_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.commit(State(step=step))
    (tmp_path / "states" / "000002.json").write_text('{"step": 2')
    with pytest.raises(StoreError, match="000002"):
        checkpoints.read()


def test_the_learners_of_stable_of_the_candidate_and_of_the_version_in_the_making_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    stable = checkpoints.commit(State(), writer("stable"))
    tried = checkpoints.commit(stable.model_copy(update={"fallback": stable.standing}), writer("tried"))
    candidate = CandidateVersion(
        version=1, parent=0, trace_ids=(), spec="", metrics={}, at=0.0, standing=tried.standing
    )
    state = tried.model_copy(update={"candidate": candidate})
    for step in range(5):
        state = checkpoints.commit(state, writer(f"making {step}"))
    kept = {(tmp_path / "learner" / name / "weights").read_text() for name in state.learners}
    assert kept == {"stable", "tried", "making 4"}


def test_memory_of_fated_traces_is_bounded_and_keeps_the_newest() -> None:
    names = tuple(str(number) for number in range(MAX_FATED + 2))
    fates = [
        Fate(trace_ids=names[n:][:1000], kind=FateKind.EXPIRED, reason="", at=0.0) for n in range(0, len(names), 1000)
    ]
    state = State(fated=("old",)).owing(fates)
    assert state.fated == names[2:] and len(state.fates) == len(fates)


def test_a_checkpoint_of_before_versions_grew_during_trials_gives_no_turn_of_its_candidate_back() -> None:
    given = {
        "step": 3, "base": 1, "learner": "000004", "baselines": {"main:value:k": 0.2}, "offsets": {"rewards": {"0": 7}},
        "candidate": {
            "version": 2, "parent": 1, "trace_ids": ["a"], "spec": "s", "metrics": {}, "at": 1.0, "is_published": True,
            "context": {},
        },
        "fallback": {"learner": "000002", "baselines": {"main:value:k": 0.1}, "seen": {}},
    }  # fmt: skip
    state = State.model_validate_json(json.dumps(given))
    assert state.candidate is not None and state.fallback is not None
    assert state.candidate.standing == state.standing and state.used == ()
    assert (state.fallback.learner, [one.mean for one in state.fallback.baselines.nodes]) == ("000002", [0.1])
    assert state.fallback.offsets == state.offsets == {"rewards": {0: 7}}
    assert State.model_validate_json(state.model_dump_json()) == state

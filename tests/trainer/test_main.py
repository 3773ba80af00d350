import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StoreError
from infra.lifecycle import Stop
from ingest.log.reader import outlast_outages
from trainer.__main__ import OUTAGES, _status
from trainer.loop import Trainer


def trainer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trainer", *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, trainer.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_a_second_of_computing() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert trainer("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_mistake_in_the_configuration_is_one_message_and_no_stack_trace(tmp_path: Path) -> None:
    done = trainer("--config", str(tmp_path / "missing.yaml"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "no such file" in done.stderr


def test_a_folder_that_is_no_model_is_one_message_and_no_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "onstream.yaml").write_text(f"model: {{path: {tmp_path}}}\n")
    done = trainer("--config", str(tmp_path / "onstream.yaml"))
    assert done.returncode == 1 and "Traceback" not in done.stderr and "config.json" in done.stderr


def test_status_says_what_a_start_waits_for(world: Any) -> None:
    running: dict[str, Any] = {}
    starting = {"phase": "starting", "waits_for": "a place"}
    assert _status(running, starting) == (200, starting)
    running["trainer"] = world.start()
    assert _status(running, starting)[1]["phase"] == "waiting for a stable version"


def ticks(world: Any) -> None:
    """A run of the stage over the learner that another left, as far as a version."""
    trainer = Trainer(world.config, world.log, world.store, world.policy, Stop(), now=lambda: world.time)
    try:
        trainer.recover()
        for _ in range(8):
            trainer.tick()
    finally:
        trainer.close()


@pytest.mark.parametrize("fails", ["pipe_file", "put_file", "get_file", "glob"])
def test_a_store_that_once_does_not_answer_is_outlasted(
    world: Any, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Its library's error is no `OSError`."""
    runs, own = list[int](), getattr(world.store._fs, fails)
    world.bootstrap()
    world.fill("a")

    def fail_once(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.store._fs, fails, own)
        raise RuntimeError("endpoint not reached")

    def run() -> None:
        runs.append(1)
        ticks(world)

    monkeypatch.setattr(world.store._fs, fails, fail_once)
    outlast_outages(Stop(), run, OUTAGES)
    assert len(runs) == 2 and [version.version for version in world.published()] == [1]
    assert sorted(world.weights(1)) == world.tokens("a")


def test_a_checkpoint_that_is_not_readable_ends_the_stage(world: Any) -> None:
    world.bootstrap()
    world.fill("a")
    ticks(world)
    for state in (world.folder / "trainer" / "states").iterdir():
        state.write_text("{")
    with pytest.raises(StoreError, match="not readable"):
        outlast_outages(Stop(), lambda: ticks(world), OUTAGES)

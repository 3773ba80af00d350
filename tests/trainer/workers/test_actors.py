import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.config import TrainerConfig
from infra.errors import StartError, StoreError
from infra.lifecycle import Deadline, Stop
from trainer.learner.batching import Sample, Span, minibatches

pytestmark = [
    # Ray leaves the pipes and log files of processes it started to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def config() -> TrainerConfig:
    return TrainerConfig(lr=1e-2, dtype="float32", threads=1)


@pytest.fixture(scope="module")
def policy(config: TrainerConfig, tiny_model: Path) -> Iterator[Any]:
    """One actor for all tests that need one: its process imports torch, which takes seconds."""
    import ray

    from trainer.workers.actors import RayPolicy, start_ray

    start_ray(config.model_copy(update={"threads": 2}))
    yield RayPolicy(tiny_model, config, Stop())
    ray.shutdown()


BATCH = minibatches([Sample((5, 6, 7, 8), (Span(2, 4, (-5.0, -5.0), 1.0),))], 8, 2048, seed=0)


def test_the_actor_trains_saves_restores_and_exports_as_the_learner_does(
    policy: Any, tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from trainer.learner.learner import Learner

    found: list[float] = []
    for name, one in (("remote", policy), ("here", Learner(tiny_model, config))):
        (tmp_path / name).mkdir()
        metrics = one.update(BATCH)
        one.save(tmp_path / name)
        one.load(tiny_model)
        one.anchor(tmp_path / name)
        found.append(one.update(BATCH).stable_kl)
        one.anchor(None)
        found.append(one.update(BATCH).stable_kl)
        one.restore(tmp_path / name)
        one.export(tmp_path / f"{name}-export")
        assert metrics.num_steps == 1 and metrics.num_skipped == 0
    remote, here = (load_file(tmp_path / f"{name}-export" / "model.safetensors") for name in ("remote", "here"))
    assert found[:2] == found[2:] and found[0] == 0.0 and found[1] > 0.0  # the same step again, and one more
    assert remote.keys() == here.keys()
    assert all(bool((remote[name] - here[name]).abs().max() < 1e-2) for name in here)


def test_a_learner_that_does_not_see_our_disk_has_its_files_carried(
    policy: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.workers.carry import Carrier, is_elsewhere

    for name in ("here", "away"):
        (tmp_path / name).mkdir()
    policy.save(tmp_path / "here")
    monkeypatch.setattr(policy, "carrier", Carrier(policy._actor, policy._wait, is_needed=True, piece_bytes=1000))
    policy.load(tiny_model)
    policy.restore(tmp_path / "here")
    policy.save(tmp_path / "away")
    policy.export(tmp_path / "export")
    held = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert held == {path.name: path.read_bytes() for path in (tmp_path / "away").iterdir()}
    assert (tmp_path / "export" / "model.safetensors").stat().st_size > 1000
    with pytest.raises(StoreError, match=r"learner state .*: not readable"):
        policy.restore(tmp_path / "export")
    assert not is_elsewhere(policy._actor, policy._wait, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "export", "here"]


def test_an_error_of_ours_in_the_actor_arrives_as_itself(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="learner state"):
        policy.restore(tmp_path)


def test_a_model_that_cannot_be_loaded_is_a_start_error_and_leaves_no_actor(
    policy: Any, config: TrainerConfig, tmp_path: Path
) -> None:
    import ray

    from trainer.workers.actors import RayPolicy

    with pytest.raises(StartError, match="not loadable"):
        RayPolicy(tmp_path, config, Stop())
    until = Deadline.after(30.0)
    while ray.available_resources().get("CPU", 0.0) < 1.0 and not until.passed():
        ray.wait([ray.put(0)], timeout=0.1)
    assert not until.passed()


def test_a_stop_does_not_wait_for_the_learner(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.workers.actors import StoppedError

    stop = Stop()
    stop.set()
    monkeypatch.setattr(policy, "_stop", stop)
    began = time.monotonic()
    with pytest.raises(StoppedError):
        policy.update(BATCH * 1000)
    assert time.monotonic() - began < 2.0


def test_a_learner_whose_process_dies_is_reported_in_one_error(policy: Any, tmp_path: Path) -> None:
    """Stays the last that uses `policy`."""
    from trainer.workers.actors import LearnerDiedError

    policy.close()
    with pytest.raises(LearnerDiedError):
        policy.save(tmp_path)


def test_what_an_attempt_to_start_ray_leaves_is_ended_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.workers import actors

    def hangs(_config: TrainerConfig) -> None:
        left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        if len(left) == 1:
            raise Exception("The current node timed out during startup")

    left: list[subprocess.Popen[bytes]] = []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as mine:
        monkeypatch.setattr(actors, "_init", hangs)
        monkeypatch.setattr(actors.ray, "shutdown", lambda: None)
        actors.start_ray(TrainerConfig())
        assert left[0].wait(10.0) != 0
        assert (left[1].poll(), mine.poll()) == (None, None)
        for process in (left[1], mine):
            process.kill()
            process.wait()


DRIVER = """
import ray, time
from infra.config import TrainerConfig
from trainer.workers.actors import start_ray

class Holder:
    def hold(self):
        return 0

start_ray(TrainerConfig(threads=1))
holder = ray.remote(Holder).remote()
ray.get(holder.hold.remote())
print("ready", flush=True)
time.sleep(600)
"""


def test_nothing_of_ray_outlives_a_killed_driver() -> None:
    """But for its two agents, which end by themselves about a minute later."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    offspring = psutil.Process(driver.pid).children(recursive=True)
    agents = [process for process in offspring if process.name() in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
    assert any(process.name() == "raylet" for process in offspring)
    assert any("Holder" in process.name() for process in offspring)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    _, alive = psutil.wait_procs([process for process in offspring if process not in agents], timeout=30)
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()
    assert [process.name() for process in alive] == []

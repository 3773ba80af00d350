import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.config import Packing, TrainerConfig
from infra.errors import StartError, StoreError, StoreOutageError
from infra.lifecycle import Deadline, Stop
from infra.storage import Folder, Place
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
def cluster() -> Iterator[None]:
    """One Ray for all tests that need one."""
    import ray

    from trainer.workers.node import start_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers find `tests/support` as we do
        start_ray(TrainerConfig(threads=2, workers=2))
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def two(config: TrainerConfig, tiny_model: Path, cluster: None) -> Iterator[Any]:
    """Two workers that see none of our folders but through an object store. Their processes import torch: seconds."""
    from objects import KnowingActor

    from trainer.workers import actors

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors, "LearnerActor", KnowingActor)
        own = config.model_copy(
            update={"workers": 2, "checkpoint_dir": f"objects://{folder}", "ray_address": "elsewhere"}
        )
        yield actors.RayPolicy(tiny_model, own, Stop())


@pytest.fixture(scope="module")
def policy(config: TrainerConfig, tiny_model: Path, cluster: None) -> Iterator[Any]:
    """One worker alone."""
    from trainer.workers.actors import RayPolicy

    yield RayPolicy(tiny_model, config, Stop())


BATCH = minibatches(
    [Sample((5, 6, 7, 8), (Span(2, 4, (-5.0, -5.0), 1.0),)), Sample((9, 3, 4), (Span(1, 3, (-5.0, -4.0), -1.0),))],
    8,
    16,
    seed=0,
    packing=Packing.ROWS,
)


def learned(one: Any, tiny_model: Path, kept: Place, export: Path) -> dict[str, Any]:
    """An update, saved and restored, and what a version of it holds. Beside itself as stable it is where it was."""
    from safetensors.torch import load_file

    metrics = one.update(BATCH)
    if (saving := one.save(kept)) is not None:
        saving.wait()
    one.load(tiny_model)
    one.anchor(kept)
    assert one.update(BATCH).stable_kl == 0.0  # the same step again
    one.anchor(None)
    assert one.update(BATCH).stable_kl > 0.0
    one.restore(kept)
    one.export(export)
    assert metrics.num_steps == 1 and metrics.num_skipped == 0 and metrics.num_tokens == 4
    return dict(load_file(export / "model.safetensors"))


def test_workers_train_save_restore_and_export_as_one_learner_does(
    policy: Any, two: Any, tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    """Two of them by way of an object store, which is all that they and we see."""
    from trainer.learner.learner import Learner

    here = learned(Learner(tiny_model, config), tiny_model, tmp_path / "here", tmp_path / "here-export")
    for name, one, kept in (("one", policy, tmp_path / "one"), ("two", two, two._kept.under("learner/1").place)):
        found = learned(one, tiny_model, kept, tmp_path / f"{name}-export")
        assert found.keys() == here.keys()
        # to the spacing of bfloat16: a step that one of them did not take would be ten times that
        assert all(here[name].allclose(found[name], rtol=2**-7, atol=1e-6) for name in here)
    assert two._kept.under("learner/1").names() == [f"part-0000{rank}-of-00002.safetensors" for rank in range(2)]
    assert two._kept.under("passing").names() == []


def test_training_goes_on_while_a_copy_is_written_and_is_not_in_it(
    two: Any, tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    from trainer.learner.learner import Learner

    for name in ("before", "after"):
        saving = two.save(two._kept.under(f"learner/{name}").place)
        two.update(BATCH * 5)
        saving.wait()
        assert saving.is_done
    before, after = (Learner(tiny_model, config) for _ in range(2))
    before.restore(two._kept.under("learner/before").place)
    after.restore(two._kept.under("learner/after").place)
    before.update(BATCH * 5)
    pairs = zip(before.model.parameters(), after.model.parameters(), strict=True)
    assert max(float((one - other).detach().abs().max()) for one, other in pairs) < 1e-4


def test_what_one_rank_cannot_read_is_an_error_that_leaves_the_group_whole(two: Any) -> None:
    place = two._kept.under("learner/damaged")
    two.save(place.place).wait()
    place.write("part-00001-of-00002.safetensors", b"no such thing")
    with pytest.raises(StoreError, match=r"learner state .*: not readable"):
        two.restore(place.place)
    assert two.update(BATCH).num_steps == 1


def test_a_model_that_does_not_reach_one_rank_is_an_error_that_leaves_the_group_whole(
    two: Any, tiny_model: Path
) -> None:
    place = two._kept.under("model")
    place.send(tiny_model)
    two._kept.write("model.away", b"")
    with pytest.raises(StoreOutageError, match="does not answer"):
        two._workers.call("load", place.place)
    two._workers.call("load", place.place)
    assert two.update(BATCH).num_steps == 1


def test_a_folder_that_workers_elsewhere_do_not_see_is_refused(
    two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two, "_kept", Folder(tmp_path))
    assert two._is_shared()
    monkeypatch.setattr(two._workers, "call", lambda *_: [True, False])
    with pytest.raises(StartError, match=r"1 of 2 workers do not see .* it must be an fsspec URL"):
        two._is_shared()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_ours_in_the_actor_arrives_as_itself(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="learner state"):
        policy.restore(tmp_path)


def test_a_model_that_cannot_be_loaded_is_a_start_error_and_leaves_no_actor(
    cluster: None, config: TrainerConfig, tmp_path: Path
) -> None:
    import ray

    from trainer.workers.actors import RayPolicy

    free = ray.available_resources()["CPU"]
    with pytest.raises(StartError, match="not loadable"):
        RayPolicy(tmp_path, config, Stop())
    until = Deadline.after(30.0)
    while ray.available_resources().get("CPU", 0.0) < free and not until.passed():
        ray.wait([ray.put(0)], timeout=0.1)
    assert not until.passed()


def test_workers_that_this_machine_has_no_place_for_are_a_start_error(
    cluster: None, config: TrainerConfig, tiny_model: Path
) -> None:
    from trainer.workers.actors import RayPolicy

    for more, told in ({"device": "cuda"}, "CPU 3, GPU 3, .* CPU 4, GPU 0"), ({"threads": 2}, "CPU 6, .* CPU 4"):
        with pytest.raises(StartError, match=rf"trainer\.device: 3 workers need {told}"):
            RayPolicy(tiny_model, config.model_copy(update={"workers": 3, **more}), Stop())


def test_workers_that_a_cluster_has_no_place_for_wait_and_say_so_again(
    cluster: None,
    config: TrainerConfig,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from trainer.workers import actors

    stop, told = Stop(), list[str]()

    def tell(waits_for: str) -> None:
        told.append(waits_for)
        if len(told) == 2:
            stop.set()

    monkeypatch.setattr(actors, "_TELL_S", 0.0)
    own = config.model_copy(update={"ray_address": "elsewhere", "device": "cuda"})
    with pytest.raises(actors.StoppedError):
        actors.RayPolicy(tiny_model, own, stop, tell)
    assert told[0] == told[1] == "a place for 1 workers with CPU 1, GPU 1 each, where Ray has CPU 4, GPU 0"
    assert [record.levelname for record in caplog.records if told[0] in record.message] == ["WARNING"] * 2


def test_a_stop_does_not_wait_for_the_learner(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.workers.actors import StoppedError

    stop = Stop()
    stop.set()
    monkeypatch.setattr(policy._workers, "_stop", stop)
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


def test_one_dead_worker_ends_the_call_of_all_in_that_error(two: Any) -> None:
    """Stays the last that uses `two`: the other waits in a collective for one that will never come."""
    import ray

    from trainer.workers.actors import LearnerDiedError

    refs = two._workers.begin("update", BATCH * 500)
    ray.kill(two._workers._actors[1])
    with pytest.raises(LearnerDiedError):
        two._workers.wait(refs)
    two.close()


def test_what_an_attempt_to_start_ray_leaves_is_ended_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.workers import node

    def hangs(_config: TrainerConfig) -> None:
        left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        if len(left) == 1:
            raise Exception("The current node timed out during startup")

    left: list[subprocess.Popen[bytes]] = []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as mine:
        monkeypatch.setattr(node, "_init", hangs)
        monkeypatch.setattr(node.ray, "shutdown", lambda: None)
        node.start_ray(TrainerConfig())
        assert left[0].wait(10.0) != 0
        assert (left[1].poll(), mine.poll()) == (None, None)
        for process in (left[1], mine):
            process.kill()
            process.wait()


DRIVER = """
import ray, time
from infra.config import TrainerConfig
from trainer.workers.node import start_ray

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

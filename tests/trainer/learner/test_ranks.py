"""One model spread over two processes, against the same model in one."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranked
import torch
from ranked import Ranked
from safetensors.torch import save_file

from infra.config import Correction, LoraConfig, LossConfig, LossKind, TrainerConfig
from infra.errors import StoreError
from infra.storage import Folder
from trainer.learner import parts
from trainer.learner.batching import Hint, Minibatch, Sample, Span, laid_out, minibatches
from trainer.learner.ranks import Ranks
from trainer.learner.update import ElsewhereError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def two() -> Iterator[Ranked]:
    """Two processes for all tests: each imports torch, which takes seconds."""
    made = Ranked(2)
    yield made
    made.close()


def batch(num_samples: int, minibatch_turns: int, seed: int = 0) -> Sequence[Minibatch]:
    """Microbatches of about two samples each; every third turn is corrected."""
    make = random.Random(seed)
    samples = []
    for number in range(num_samples):
        ids = tuple(make.randrange(128) for _ in range(make.randrange(10, 40)))
        start = len(ids) // 2
        logps = tuple(make.uniform(-6.0, -3.0) for _ in ids[start:])
        hint = Hint(ids[:3], 0.5) if number % 3 == 0 else None
        samples.append(Sample(ids, (Span(start, len(ids), logps, make.gauss(0.0, 1.0), hint),)))
    return minibatches(samples, minibatch_turns, 60, seed=0)


BATCH = batch(21, 11)


def own(**changes: Any) -> TrainerConfig:
    return TrainerConfig(
        **{"lr": 1e-3, "dtype": "float32", "threads": 1, "max_grad_norm": math.inf, "max_version_kl": 0.0, **changes}
    )


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return float(max(np.abs(one[name] - other[name]).max() for name in one))


HINTED_TOKENS = 90  # three microbatches for the teacher: one rank reads two, the other one and a filler
CONFIGS = [
    *[own(loss=LossConfig(kind=kind)) for kind in LossKind],
    own(recompute_activations=True, logits_chunk_tokens=7),
    own(loss=LossConfig(correction=Correction.TRUNCATE, kl_coefficient=0.1)),
    own(lora=LoraConfig(rank=4)),
    own(loss=LossConfig(hint_weight=1.0), microbatch_tokens=HINTED_TOKENS),
    own(loss=LossConfig(hint_weight=1.0), microbatch_tokens=HINTED_TOKENS, lora=LoraConfig(rank=4)),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=[*LossKind, "recomputed", "anchored", "adapters", "hinted", "hinted adapters"]
)
def test_two_ranks_have_the_loss_and_the_gradients_of_one(two: Ranked, tiny_model: Path, config: TrainerConfig) -> None:
    """Also where a rank has one microbatch less than the other, and keeps it company with what counts for nothing."""
    assert {len(minibatch) % 2 for minibatch in BATCH} == {0, 1}
    hinted = [one.sample for minibatch in BATCH for microbatch in minibatch for one in microbatch.hinted]
    assert len(laid_out(hinted, HINTED_TOKENS, config.packing)[0]) == 3
    losses, gradients = ranked.gradients(tiny_model, config, BATCH)
    for their_losses, theirs in two.run(ranked.gradients, tiny_model, config, BATCH):
        assert their_losses == pytest.approx(losses, abs=1e-5)
        assert all(apart(*pair) < 1e-5 for pair in zip(gradients, theirs, strict=True))
    assert min(float(max(np.abs(g).max() for g in one.values())) for one in gradients) > 1e-2


def test_two_ranks_update_as_one_does(two: Ranked, tiny_model: Path) -> None:
    metrics, weights = ranked.trained(tiny_model, own(max_grad_norm=0.5), BATCH, None, None)
    found = two.run(ranked.trained, tiny_model, own(max_grad_norm=0.5), BATCH, None, None)
    for their_metrics, theirs in found:
        assert vars(their_metrics) == pytest.approx(vars(metrics), abs=1e-5)
        assert apart(weights, theirs) < 1e-5
    assert apart(found[0][1], found[1][1]) == 0.0


WHOLE = LossConfig(correction=Correction.BYPASS)
"""Knows nothing of where an update began, so that two make one."""


@pytest.mark.parametrize("config", [own(loss=WHOLE), own(loss=WHOLE, lora=LoraConfig(rank=4))], ids=["all", "adapters"])
def test_what_two_ranks_saved_goes_on_in_one_and_in_two_as_if_nothing_had_been(
    two: Ranked, tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    first, second = BATCH[:1], BATCH[1:]
    (_, through), _ = two.run(ranked.trained, tiny_model, config, BATCH, None, None)
    (_, saved), _ = two.run(ranked.trained, tiny_model, config, first, None, tmp_path)
    assert apart(ranked.trained(tiny_model, config, [], tmp_path, None)[1], saved) == 0.0
    assert apart(two.run(ranked.trained, tiny_model, config, second, tmp_path, None)[0][1], through) == 0.0
    assert apart(ranked.trained(tiny_model, config, second, tmp_path, None)[1], through) < 1e-5


def test_what_one_saved_goes_on_in_two(two: Ranked, tiny_model: Path, tmp_path: Path) -> None:
    _, saved = ranked.trained(tiny_model, own(), BATCH[:1], None, tmp_path)
    for _, theirs in two.run(ranked.trained, tiny_model, own(), [], tmp_path, None):
        assert apart(theirs, saved) == 0.0


@pytest.mark.parametrize("config", [own(), own(lora=LoraConfig(rank=4))], ids=["all", "adapters"])
def test_a_version_of_two_ranks_is_to_the_byte_that_of_one_and_loads(
    two: Ranked, tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    import torch
    import transformers

    kept, one, other = tmp_path / "kept", tmp_path / "one", tmp_path / "other"
    _, weights = ranked.trained(tiny_model, config, BATCH, None, kept)
    ranked.exported(tiny_model, config, one, kept, 20_000)
    two.run(ranked.exported, tiny_model, config, other, kept, 20_000)
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert files == {path.name: path.read_bytes() for path in other.iterdir()}
    index = json.loads(files["model.safetensors.index.json"])
    assert len(set(index["weight_map"].values())) > 2 and set(index["weight_map"].values()) < files.keys()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(one)
    assert loaded.dtype == torch.bfloat16 and loaded.config.architectures == ["LlamaForCausalLM"]
    if config.lora is None:
        named = dict(loaded.named_parameters())
        assert all(torch.equal(named[name], torch.from_numpy(weights[name]).bfloat16()) for name in named)


def test_adapters_of_two_ranks_are_to_the_byte_those_of_one(two: Ranked, tiny_model: Path, tmp_path: Path) -> None:
    config, kept, one, other = own(lora=LoraConfig(rank=4)), tmp_path / "kept", tmp_path / "one", tmp_path / "other"
    ranked.trained(tiny_model, config, BATCH, None, kept)
    ranked.exported_adapters(tiny_model, config, one, kept)
    two.run(ranked.exported_adapters, tiny_model, config, other, kept)
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert files == {path.name: path.read_bytes() for path in other.iterdir()}


def test_what_one_rank_cannot_read_fails_on_both_and_neither_waits_for_ever(
    two: Ranked, tiny_model: Path, tmp_path: Path
) -> None:
    two.run(ranked.trained, tiny_model, own(), BATCH[:1], None, tmp_path)
    (tmp_path / "part-00001-of-00002.safetensors").write_bytes(b"no such thing")
    failures = two.failures(ranked.trained, tiny_model, own(), [], tmp_path, None)
    assert {type(failure) for failure in failures} <= {StoreError, ElsewhereError} and StoreError in map(type, failures)
    assert two.run(ranked.trained, tiny_model, own(), BATCH[:1], None, None)


def test_a_part_that_is_missing_is_an_error(two: Ranked, tiny_model: Path, tmp_path: Path) -> None:
    two.run(ranked.trained, tiny_model, own(), [], None, tmp_path)
    (tmp_path / "part-00001-of-00002.safetensors").unlink()
    with pytest.raises(StoreError, match="expected all parts of one number of workers"):
        ranked.trained(tiny_model, own(), [], tmp_path, None)


def test_a_rank_takes_the_one_gpu_that_ray_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` without a number is no device that can be set."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_given, **_more: None)
    Ranks.join(1, 2, torch.distributed.HashStore(), "cuda")
    assert taken == [0]


def test_what_a_learner_saved_before_there_were_parts_is_read(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(3, 2)
    moments = {f"{moment}.w": weight + number for number, moment in enumerate(("exp_avg", "exp_avg_sq"), 1)}
    save_file({"w": weight}, tmp_path / "weights.safetensors")
    save_file(moments, tmp_path / "optimizer.safetensors")
    (tmp_path / "scalars.json").write_text('{"steps": {"w": 4}}')
    held = parts.read(Folder(tmp_path), {"w": slice(1, 3)}, "", own=(1, 2))["w"]
    assert (held.first, held.num_rows, held.step) == (1, 3, 4)
    assert {kind: part.tolist() for kind, part in held.tensors.items()} == {
        "weight": [[2.0, 3.0], [4.0, 5.0]],
        "exp_avg": [[3.0, 4.0], [5.0, 6.0]],
        "exp_avg_sq": [[4.0, 5.0], [6.0, 7.0]],
    }


def test_where_as_many_read_as_wrote_each_opens_its_own_part(tmp_path: Path) -> None:
    rows = [slice(0, 2), slice(2, 3)]
    for rank, here in enumerate(rows):
        held = parts.Held(here.start, 3, {"weight": torch.arange(3.0)[here]}, 0)
        parts.Part(rank, 2, {"w": held}, "").write(Folder(tmp_path))
    assert parts.read(Folder(tmp_path), {"w": slice(0, 3)}, "")["w"].tensors["weight"].tolist() == [0.0, 1.0, 2.0]
    (tmp_path / "part-00000-of-00002.safetensors").write_bytes(b"damaged")
    assert parts.read(Folder(tmp_path), {"w": rows[1]}, "", own=(1, 2))["w"].tensors["weight"].tolist() == [2.0]

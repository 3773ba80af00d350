import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from infra.config import Correction, LossConfig, LossKind, LrByEss, Packing, TrainerConfig
from infra.errors import StartError, StoreError
from trainer.learner.batching import Minibatch, Sample, Span, minibatches
from trainer.learner.learner import Learner

SAMPLES = [
    Sample((5, 6, 7, 8, 9, 10, 11), (Span(2, 4, (-5.0, -5.1), 1.5), Span(5, 7, (-4.9, -5.0), -0.7))),
    Sample((20, 21, 22, 23), (Span(1, 4, (-4.8, -5.0, -5.2), 0.4),)),
    Sample((30, 31, 32, 33, 34), (Span(3, 5, (-5.0, -4.7), -1.2),)),
]


def cut(
    samples: Sequence[Sample], microbatch_tokens: int = 2048, packing: Packing = Packing.SHARED
) -> tuple[Minibatch, ...]:
    return minibatches(samples, 100, microbatch_tokens, seed=0, packing=packing)


def groups(seed: int = 0) -> list[Sample]:
    """Three prompts of 40, 25 and 10 tokens with four replies each, and one session that went two ways."""
    make = random.Random(seed)

    def tokens(num: int) -> tuple[int, ...]:
        return tuple(make.randrange(128) for _ in range(num))

    def span(start: int, num: int) -> Span:
        return Span(start, start + num, tuple(make.uniform(-6.0, -3.0) for _ in range(num)), make.gauss(0.0, 1.0))

    made = []
    for length in (40, 25, 10):
        prompt = tokens(length)
        for num in (3, 8, 14, 5):
            made.append(Sample(prompt + tokens(num), (span(length, num),)))
    turn, reply = tokens(20), tokens(6)
    made.append(Sample(turn + reply + tokens(12), (span(20, 6), span(30, 8))))
    made.append(Sample(turn + reply + tokens(9), (span(30, 5),)))
    make.shuffle(made)
    return made


def logps_of(learner: Learner, sample: Sample) -> list[float]:
    """Log-probabilities of a sample's trained tokens, by the model's own full logits."""
    with torch.no_grad():
        logps = learner.model(torch.tensor([sample.token_ids])).logits[0].log_softmax(-1)
    places = [place for span in sample.spans for place in range(span.start, span.end)]
    return [float(logps[place - 1, sample.token_ids[place]]) for place in places]


def on_policy(learner: Learner, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with the log-probabilities that the learner itself gives."""
    made = []
    for sample in samples:
        found, spans = logps_of(learner, sample), []
        for span in sample.spans:
            spans.append(replace(span, logps=tuple(found[: span.end - span.start])))
            found = found[span.end - span.start :]
        made.append(replace(sample, spans=tuple(spans)))
    return made


def gradients(learner: Learner, parts: tuple[Minibatch, ...]) -> dict[str, torch.Tensor]:
    learner.model.zero_grad()
    (minibatch,) = parts
    for microbatch in minibatch:
        learner.loss(microbatch, minibatch).loss.backward()
    return {name: param.grad.clone() for name, param in learner.model.named_parameters()}


def reference_gradients(learner: Learner, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Sequence by sequence, full logits, the truncated policy gradient written out token by token."""
    learner.model.zero_grad()
    total, num_tokens = torch.zeros(()), 0
    for sample in samples:
        logps = learner.model(torch.tensor([sample.token_ids])).logits[0].log_softmax(-1)
        for span in sample.spans:
            for place, behaviour in zip(range(span.start, span.end), span.logps, strict=True):
                logp = logps[place - 1, sample.token_ids[place]]
                weight = min(2.0, float((logp.detach() - behaviour).exp()))
                total, num_tokens = total - weight * span.advantage * logp, num_tokens + 1
    (total / num_tokens).backward()
    return {name: param.grad.clone() for name, param in learner.model.named_parameters()}


@pytest.fixture
def learner(tiny_model: Path, learner_config: TrainerConfig) -> Learner:
    return Learner(tiny_model, learner_config)


def test_a_positive_advantage_makes_its_tokens_likelier_and_a_negative_one_less(learner: Learner) -> None:
    samples = on_policy(learner, [Sample((5, 6, 7, 8), (Span(2, 4, (0.0, 0.0), 1.0),)),
                                  Sample((9, 6, 3, 4), (Span(2, 4, (0.0, 0.0), -1.0),))])  # fmt: skip
    before = [sum(logps_of(learner, sample)) for sample in samples]
    learner.update(cut(samples))
    after = [sum(logps_of(learner, sample)) for sample in samples]
    assert after[0] > before[0] and after[1] < before[1]


def test_the_gradient_is_that_of_a_naive_full_logits_reference(learner: Learner) -> None:
    found, expected = gradients(learner, cut(SAMPLES)), reference_gradients(learner, SAMPLES)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6, rtol=1e-4) for name in expected)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())


def test_cutting_into_microbatches_does_not_change_the_gradient(learner: Learner) -> None:
    whole, parts = cut(SAMPLES), cut(SAMPLES, microbatch_tokens=10)
    assert len(whole[0]) == 1 and len(parts[0]) > 1
    one, many = gradients(learner, whole), gradients(learner, parts)
    assert all(torch.allclose(one[name], many[name], atol=1e-6) for name in one)


def computed(parts: tuple[Minibatch, ...]) -> int:
    return sum(microbatch.token_ids_BT.size for minibatch in parts for microbatch in minibatch)


@pytest.mark.parametrize("kind", list(LossKind))
@pytest.mark.parametrize("packing", [Packing.PACKED, Packing.SHARED])
@pytest.mark.parametrize("microbatch_tokens", [4096, 150])
def test_rows_that_hold_several_samples_give_the_gradient_of_a_row_for_each(
    tiny_model: Path, learner_config: TrainerConfig, kind: LossKind, packing: Packing, microbatch_tokens: int
) -> None:
    learner = Learner(tiny_model, learner_config.model_copy(update={"loss": LossConfig(kind=kind)}))
    apart, joint = cut(groups(), 1, Packing.ROWS), cut(groups(), microbatch_tokens, packing)
    assert all(microbatch.is_causal and len(microbatch.token_ids_BT) == 1 for microbatch in apart[0])
    assert len(joint[0]) < len(apart[0]) and not all(microbatch.is_causal for microbatch in joint[0])
    losses = [sum(float(learner.loss(m, parts[0]).loss.detach()) for m in parts[0]) for parts in (apart, joint)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    expected, found = gradients(learner, apart), gradients(learner, joint)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


def test_shared_rows_compute_fewer_tokens_than_packed_ones_and_packed_ones_fewer_than_padded_ones() -> None:
    assert computed(cut(groups(), 400)) < 0.7 * computed(cut(groups(), 400, Packing.PACKED))
    assert computed(cut(groups(), 400, Packing.PACKED)) <= computed(cut(groups(), 400, Packing.ROWS))


def test_logits_in_chunks_give_the_gradient_of_all_at_once_and_are_never_all_there(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    """Rows of the head's output are counted, and what the backward pass keeps."""
    found, kept, most = [], [], []
    for chunk_tokens in (4096, 7):
        learner = Learner(tiny_model, learner_config.model_copy(update={"logits_chunk_tokens": chunk_tokens}))
        num_rows, saved = list[int](), list[int]()

        def note(_head: object, _hidden: object, logits: torch.Tensor, num_rows: list[int] = num_rows) -> None:
            num_rows.append(len(logits))

        def keep(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(len(tensor) if tensor.dim() == 2 and tensor.shape[1] == 128 else 0)
            return tensor

        learner.model.get_output_embeddings().register_forward_hook(note)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(gradients(learner, cut(groups())))
        kept.append(max(saved))
        most.append(max(num_rows))
    num_trained = sum(span.end - span.start for sample in groups() for span in sample.spans)
    assert most == [num_trained, 7] and kept[0] == num_trained and kept[1] <= 7
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-5


def test_activations_computed_again_give_the_same_gradient_and_are_not_kept(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    found, kept = [], []
    for recompute in (False, True):
        learner = Learner(tiny_model, learner_config.model_copy(update={"recompute_activations": recompute}))
        saved = list[int]()

        def keep(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(gradients(learner, cut(groups())))
        kept.append(sum(saved))
        assert not any(module.training for module in learner.model.modules() if not list(module.children()))
    assert kept[1] < 0.5 * kept[0]
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-6


@pytest.mark.parametrize("correction", [Correction.TRUNCATE, Correction.MASK])
def test_the_clip_is_against_the_policy_as_the_update_began(
    tiny_model: Path, learner_config: TrainerConfig, correction: Correction
) -> None:
    """Two steps on the same sample: in the second the ratio is no longer 1, though mu was never near."""
    sample = Sample((5, 6, 7, 8), (Span(2, 4, (-6.0, -6.0), 1.0),))
    own = LossConfig(correction=correction, min_correction=1e-6, max_correction=1e6)
    learner = Learner(tiny_model, learner_config.model_copy(update={"loss": own}))
    began = torch.tensor(logps_of(learner, sample))
    metrics = learner.update(cut([sample]) * 2)
    moved = Learner(tiny_model, learner_config.model_copy(update={"loss": own}))
    moved.update(cut([sample]))
    now = torch.tensor(logps_of(moved, sample))
    weights = (began + 6.0).exp()
    losses = [-weights.mean(), -(weights * (now - began).exp().clamp(max=1 + own.clip_high)).mean()]
    assert metrics.loss == pytest.approx(float(sum(losses)) / 2, rel=1e-4)


def test_a_pull_to_stable_keeps_an_update_nearer_to_where_it_began(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    drifts = []
    for coefficient in (0.0, 3.0):
        own = learner_config.model_copy(update={"loss": LossConfig(kl_coefficient=coefficient), "lr": 3e-3})
        learner = Learner(tiny_model, own)
        samples = on_policy(learner, SAMPLES)
        before = torch.tensor(logps_of(learner, SAMPLES[0]))
        learner.update(cut(samples) * 6)
        drifts.append(float((torch.tensor(logps_of(learner, SAMPLES[0])) - before).abs().mean()))
    assert drifts[1] < 0.7 * drifts[0]


def test_kl_is_that_to_the_anchor_which_stays_where_it_was_taken(learner: Learner, tmp_path: Path) -> None:
    assert learner.update(cut(SAMPLES)).stable_kl is None
    learner.save(tmp_path)
    stable = [torch.tensor(logps_of(learner, sample)) for sample in SAMPLES]
    learner.anchor(None)
    taken = [learner.update(cut(SAMPLES)).stable_kl for _ in range(2)]
    ratios = [torch.tensor(logps_of(learner, sample)) - stable[n] for n, sample in enumerate(SAMPLES)]
    log_ratio = torch.cat(ratios).double()
    by_hand = float((log_ratio.exp() - 1 - log_ratio).mean())
    assert taken[0] and taken[1] and 0 < taken[0] < taken[1] == pytest.approx(by_hand, rel=1e-3)
    learner.restore(tmp_path)
    learner.update(cut(SAMPLES))
    learner.anchor(tmp_path)
    assert learner.update(cut(SAMPLES)).stable_kl == pytest.approx(taken[1], rel=1e-3)


def test_no_copy_is_kept_where_nobody_asks_for_kl(tiny_model: Path, learner_config: TrainerConfig) -> None:
    learner = Learner(tiny_model, learner_config.model_copy(update={"max_version_kl": 0.0}))
    learner.anchor(None)
    assert learner._stable is None and learner.update(cut(SAMPLES)).stable_kl is None


def test_a_pull_to_stable_holds_over_updates_that_began_elsewhere(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    own = learner_config.model_copy(update={"loss": LossConfig(kl_coefficient=3.0), "lr": 3e-3})
    drifts = []
    for is_anchored_again in (True, False):
        learner = Learner(tiny_model, own)
        samples = on_policy(learner, SAMPLES)
        before = torch.tensor(logps_of(learner, SAMPLES[0]))
        learner.anchor(None)
        for _ in range(6):
            learner.update(cut(samples))
            if is_anchored_again:
                learner.anchor(None)
        drifts.append(float((torch.tensor(logps_of(learner, SAMPLES[0])) - before).abs().mean()))
    assert drifts[1] < 0.7 * drifts[0]


def test_under_bfloat16_weights_that_stay_have_no_kl(tiny_model: Path, learner_config: TrainerConfig) -> None:
    learner = Learner(tiny_model, learner_config.model_copy(update={"lr": 1e-12, "dtype": "bfloat16"}))
    learner.anchor(None)
    assert learner.update(cut(SAMPLES)).stable_kl == pytest.approx(0.0, abs=1e-9)


def test_on_policy_metrics_are_ratio_one_no_kl_and_full_sample_size(learner: Learner) -> None:
    metrics = learner.update(cut(on_policy(learner, SAMPLES)))
    assert (metrics.mean_ratio, metrics.ess) == pytest.approx((1.0, 1.0), abs=1e-4)
    assert metrics.kl == pytest.approx(0.0, abs=1e-5) and metrics.clip_fraction == 0.0
    assert metrics.num_tokens == 9 and metrics.grad_norm > 0


def test_an_update_tells_the_entropy_of_the_policy_where_it_trains(learner: Learner) -> None:
    expected = []
    with torch.no_grad():
        for sample in SAMPLES:
            logps = learner.model(torch.tensor([sample.token_ids])).logits[0].log_softmax(-1)
            places = [place - 1 for span in sample.spans for place in range(span.start, span.end)]
            expected += (-(logps.exp() * logps).sum(-1))[places].tolist()
    assert learner.update(cut(SAMPLES)).entropy == pytest.approx(sum(expected) / len(expected), rel=1e-5)


@pytest.mark.parametrize("rule", list(LrByEss))
def test_a_step_is_as_long_as_its_effective_sample_size_says(
    tiny_model: Path, learner_config: TrainerConfig, rule: LrByEss
) -> None:
    """AdamW's first step moves a weight by the learning rate, whatever its gradient."""
    learner = Learner(tiny_model, learner_config.model_copy(update={"lr_by_ess": rule, "lr": 1e-3}))
    before = learner.model.get_input_embeddings().weight.detach().clone()
    metrics = learner.update(cut(SAMPLES))
    moved = float((learner.model.get_input_embeddings().weight.detach() - before).abs().max())
    scale = {LrByEss.NONE: 1.0, LrByEss.SQRT: metrics.ess**0.5, LrByEss.LINEAR: metrics.ess}[rule]
    assert metrics.ess < 0.95 and metrics.lr_scale == pytest.approx(scale)
    assert moved == pytest.approx(1e-3 * scale, rel=1e-2)


def test_a_step_that_is_not_finite_is_skipped_and_changes_nothing(learner: Learner) -> None:
    bad = [Sample((5, 6, 7), (Span(1, 3, (math.nan, -1.0), 1.0),))]
    before = {name: param.clone() for name, param in learner.model.named_parameters()}
    metrics = learner.update(cut(bad))
    assert metrics.num_skipped == 1
    assert all(torch.equal(param, before[name]) for name, param in learner.model.named_parameters())


def test_a_step_after_a_skipped_one_carries_none_of_its_gradient(learner: Learner) -> None:
    good = cut(on_policy(learner, SAMPLES))
    bad = cut([Sample((5, 6, 7), (Span(1, 3, (math.nan, -1.0), 1.0),))])
    metrics = learner.update([*bad, *good])
    assert (metrics.num_steps, metrics.num_skipped) == (2, 1) and math.isfinite(metrics.grad_norm)


def test_a_learning_rate_of_1e_5_is_not_lost_under_bfloat16(tiny_model: Path, learner_config: TrainerConfig) -> None:
    learner = Learner(tiny_model, learner_config.model_copy(update={"lr": 1e-5, "dtype": "bfloat16"}))
    before = {name: param.clone() for name, param in learner.model.named_parameters()}
    learner.update(cut(on_policy(learner, SAMPLES)))
    moved = [(param - before[name]).abs().max() for name, param in learner.model.named_parameters()]
    assert min(moved) > 5e-6


def test_bfloat16_gradients_point_where_float32s_do(tiny_model: Path, learner_config: TrainerConfig) -> None:
    exact = Learner(tiny_model, learner_config)
    mixed = Learner(tiny_model, learner_config.model_copy(update={"dtype": "bfloat16"}))
    samples = on_policy(exact, SAMPLES)  # far from the clip's edges, where a rounding error switches a token off
    flat = [
        torch.cat([gradient.flatten() for gradient in gradients(one, cut(samples)).values()]) for one in (exact, mixed)
    ]
    assert float(torch.nn.functional.cosine_similarity(*flat, dim=0)) > 0.99


def test_an_export_loads_and_gives_the_learners_log_probabilities(learner: Learner, tmp_path: Path) -> None:
    learner.update(cut(on_policy(learner, SAMPLES)))
    learner.export(tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16 and loaded.config.tie_word_embeddings
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    named = dict(loaded.named_parameters())
    assert all(torch.equal(named[name], p.bfloat16()) for name, p in learner.model.named_parameters())
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_the_same_weights_export_the_same_bytes(learner: Learner, tmp_path: Path) -> None:
    for name in ("one", "two"):
        learner.export(tmp_path / name)
    one, two = (sorted((path.name, path.read_bytes()) for path in (tmp_path / n).iterdir()) for n in ("one", "two"))
    assert one == two and "model.safetensors" in dict(one)


def test_a_restored_learner_takes_the_very_next_step_the_saved_one_takes(
    learner: Learner, tiny_model: Path, learner_config: TrainerConfig, tmp_path: Path
) -> None:
    learner.update(cut(SAMPLES))
    learner.save(tmp_path)
    other = Learner(tiny_model, learner_config)
    other.restore(tmp_path)
    for one in (learner, other):
        one.update(cut(SAMPLES))
    ours, theirs = (dict(one.model.named_parameters()) for one in (learner, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_restoring_what_does_not_fit_is_a_store_error(learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="learner state"):
        learner.restore(tmp_path)


def test_a_folder_without_a_model_is_a_start_error(tmp_path: Path, learner_config: TrainerConfig) -> None:
    with pytest.raises(StartError, match="not loadable"):
        Learner(tmp_path, learner_config)


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path, learner_config: TrainerConfig) -> None:
    shape = transformers.GraniteConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        vocab_size=128, logits_scaling=8.0,
    )  # fmt: skip
    transformers.GraniteForCausalLM(shape).save_pretrained(tmp_path)
    with pytest.raises(StartError, match="more than its output head"):
        Learner(tmp_path, learner_config)


def test_a_model_with_a_window_is_trained_in_rows_of_its_own_alone(
    tmp_path: Path, learner_config: TrainerConfig
) -> None:
    shape = transformers.MistralConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        vocab_size=128, sliding_window=8, head_dim=8,
    )  # fmt: skip
    transformers.MistralForCausalLM(shape).save_pretrained(tmp_path)
    with pytest.raises(StartError, match=r"window of 8; trainer\.packing must be `rows`"):
        Learner(tmp_path, learner_config)
    Learner(tmp_path, learner_config.model_copy(update={"packing": Packing.ROWS}))


def test_a_model_that_mixes_tokens_otherwise_than_by_attention_is_refused_for_packed_rows(
    tmp_path: Path, learner_config: TrainerConfig
) -> None:
    shape = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=128, state_size=4)
    transformers.MambaForCausalLM(shape).save_pretrained(tmp_path)
    with pytest.raises(StartError, match=r"trainer\.packing must be `rows`"):
        Learner(tmp_path, learner_config)

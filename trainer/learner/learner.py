"""The torch learner: one model, one AdamW, on one device or spread over several (`trainer.learner.ranks`).

Weights, gradients and AdamW's moments are float32 always. `dtype: bfloat16` means autocast: matrix products run in
bfloat16, about 1.8 times as fast as float32 on two CPU cores with AMX. Weights held in bfloat16 would be as fast and
would not learn: near 0.1 their spacing is 5e-4, and an AdamW step moves a weight by about the learning rate.

Shapes: B rows, T places (right-padded), N trained tokens, D hidden, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from infra.config import Correction, LoraConfig, Packing, TrainerConfig
from infra.errors import StartError
from infra.storage import Folder, Place
from trainer.learner import adapters, parts
from trainer.learner.attention import PIECEWISE, seen_in, windows
from trainer.learner.batching import Microbatch, Minibatch, Sample, Span, minibatches
from trainer.learner.entropy import sampled_entropy
from trainer.learner.export import export, export_adapters
from trainer.learner.hints import Lesson, lesson
from trainer.learner.logps import chunked_logps
from trainer.learner.loss_inputs import LossInputs, PolicyLoss
from trainer.learner.losses import policy_loss
from trainer.learner.parts import MOMENTS, WEIGHT, Held, Part
from trainer.learner.ranks import Pass, Ranks, clip, compile_layers, layers, local
from trainer.learner.sums import Sums
from trainer.learner.update import StepMetrics, UpdateMetrics, lr_scale

_PROBES = ((1, 2, 3, 4), (1, 2, 5, 6), (7, 8, 9, 10), (11, 12))
"""Two samples that begin alike, and two that do not."""
_PACKED_WITHIN = 1e-2
"""Nats. With SmolLM2-135M rounding gives 1e-5, and rows whose samples see each other 4."""


class Learner:
    """A `Policy` in this process, or one rank of it. `base` is the Hugging Face folder of shape and tokenizer."""

    def __init__(self, base: Path, config: TrainerConfig, ranks: Ranks | None = None) -> None:
        torch.set_num_threads(config.threads)
        transformers.utils.logging.disable_progress_bar()
        self._base, self._config, self._ranks = base, config, ranks or Ranks()
        self._stable: dict[str, torch.Tensor] | None = None
        self.load(base)

    def load(self, folder: Path) -> None:
        """Take the weights of a Hugging Face folder, with a fresh optimiser.

        Raises:
            StartError: the folder holds no model that transformers can load, or one this learner cannot train.
        """
        with self._ranks.together(f"model {folder}"):
            try:
                model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            except (OSError, ValueError) as exc:
                raise StartError(f"model {folder}: not loadable by transformers: {exc}") from exc
            self.model = model.eval()  # eval: dropout would break r = pi_theta / mu
            own = self._config
            self._lora: LoraConfig | None = None
            if own.lora is not None:
                self._lora, self._stored = adapters.inject(model, folder, own.lora, own.seed)
            if self._config.recompute_activations:
                self._recompute(folder)
            self._fingerprint = adapters.fingerprint(model)
        self._ranks.shard(model, self._config.device)
        model.within = _within
        register_fsdp_forward_method(model, "within")
        self._check_head(folder)
        if self._config.packing is not Packing.ROWS:
            self._check_packing(folder)
        # with FSDP2's hooks in what is compiled it has not been run
        if self._config.compile_layers and self._ranks.size == 1 and torch.device(self._config.device).type == "cuda":
            compile_layers(model)
        self._optimizer = self._fresh_optimizer()

    def _recompute(self, folder: Path) -> None:
        """Activation checkpointing. transformers does it in training mode alone, and dropout must stay off."""
        found = layers(self.model)
        if not found or not self.model.supports_gradient_checkpointing:
            raise StartError(f"model {folder}: trainer.recompute_activations must be false for it, it cannot recompute")
        self.model.gradient_checkpointing_enable()
        for layer in found:
            layer.training = True  # the layer's own mark; the modules inside stay in evaluation mode

    def _check_head(self, folder: Path) -> None:
        """Logits are computed where tokens train, by the output head alone; a model may do more (scale, soft-cap)."""
        ids_BT = torch.arange(4, device=self._config.device).unsqueeze(0) % self.model.config.vocab_size
        with torch.no_grad():
            whole_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            ours_BTV = self.model.within(lambda: self.model.get_output_embeddings()(self._hidden(ids_BT)))
        if not torch.allclose(whole_BTV, ours_BTV, atol=1e-3, rtol=1e-3):
            raise StartError(f"model {folder}: its logits are more than its output head; the trainer cannot use it")

    def _check_packing(self, folder: Path) -> None:
        """A packed row must give what rows of their own give; asked in float32, where rounding hides nothing."""
        self.model.set_attn_implementation(PIECEWISE)
        windowed = windows(self.model.config)
        if windowed is not None:
            raise StartError(f"model {folder}: it has {windowed}; trainer.packing must be `rows` for it")
        packed_N, apart_N = (self._probe(microbatch_tokens) for microbatch_tokens in (12, 1))
        if not torch.allclose(packed_N, apart_N, atol=_PACKED_WITHIN):
            raise StartError(
                f"model {folder}: packed rows give other log-probabilities than rows of their own, by up to "
                f"{float((packed_N - apart_N).abs().max()):.3g} nats; trainer.packing must be `rows` for it"
            )

    def _probe(self, microbatch_tokens: int) -> torch.Tensor:
        """Log-probabilities of the probes' trained tokens, by token: with 12, the last stands in another's row."""
        num = self.model.config.vocab_size
        samples = [Sample(tuple(n % num for n in ids), (Span(1, len(ids), (), 1.0),)) for ids in _PROBES]
        ((*parts,),) = minibatches(samples, len(_PROBES), microbatch_tokens, seed=0)
        with torch.no_grad():
            logps_N = torch.cat([self._logps(part, is_mixed=False) for part in parts])
        return logps_N[np.concatenate([part.targets_N for part in parts]).argsort(kind="stable")]

    def _hidden(self, ids_BT: torch.Tensor, **seen: Any) -> torch.Tensor:
        """Last hidden states, BTD. Padding is on the right, so causal attention alone keeps it out of plain rows."""
        return self.model.base_model(input_ids=ids_BT, use_cache=False, **seen).last_hidden_state

    def _trained(self) -> dict[str, Any]:
        return {name: param for name, param in self.model.named_parameters() if param.requires_grad}

    def _fresh_optimizer(self) -> Any:
        weights, own = self._trained().values(), self._config
        return torch.optim.AdamW(weights, lr=own.lr, weight_decay=own.weight_decay, fused=True)

    def anchor(self, folder: Place | None) -> None:
        """Keep stable's weights, where KL to them is asked for: of what trains, and of that this rank's rows."""
        if not (self._config.max_version_kl or self._config.loss.kl_coefficient):
            return
        held = None if folder is None else self._read(folder, (WEIGHT,))
        self._stable = {
            name: (_here(param) if held is None else held[name].tensors[WEIGHT]).to(self._config.device, copy=True)
            for name, param in self._trained().items()
        }

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        """One AdamW step per minibatch."""
        told = self._lesson(minibatches)
        if told is not None:
            minibatches = told.minibatches
        shares = [self._ranks.share(minibatch) for minibatch in minibatches]
        began = [[self._as_began(one.microbatch, number == 0) for one in share] for number, share in enumerate(shares)]
        stable = self._of_stable(shares)
        steps = [self._step(*of) for of in zip(minibatches, shares, began, stable, strict=True)]
        metrics = UpdateMetrics.of(steps, self._stable_kl(minibatches[-1][0]) if minibatches else None)
        if told is None:
            return metrics
        return replace(metrics, num_hinted=told.num_taught, hint_gap=told.gap)

    def _lesson(self, minibatches: Sequence[Minibatch]) -> Lesson | None:
        """The minibatches with what corrected turns are pulled to, where the loss asks for it."""
        own = self._config
        if not own.loss.hint_weight:
            return None
        return lesson(minibatches, own.microbatch_tokens, own.packing, self._logps_of_all)

    def _logps_of_all(self, microbatches: tuple[Microbatch, ...]) -> NDArray[np.float32]:
        """The log-probabilities of all their trained tokens, in order, on every rank."""
        found = [np.zeros(microbatch.num_trained, np.float32) for microbatch in microbatches]
        own = [one.microbatch for one in self._ranks.share(microbatches)]
        with torch.no_grad():
            logps = [self.logps(microbatch).cpu().numpy() for microbatch in own]
        for number, logps_N in zip(range(self._ranks.rank, len(found), self._ranks.size), logps, strict=False):
            found[number] = logps_N  # what is left over came of filler
        return np.asarray(self._ranks.sum(np.concatenate(found).tolist()), np.float32)

    def _as_began(self, microbatch: Microbatch, is_first: bool) -> torch.Tensor | None:
        """Log-probabilities before the first step, those of pi_old, where the loss needs them. The first step's own
        pass has them too."""
        own = self._config.loss
        if is_first or (own.correction is Correction.BYPASS and not own.kl_coefficient):
            return None
        with torch.no_grad():
            return self.logps(microbatch)

    def _of_stable(self, shares: Sequence[Sequence[Pass]]) -> list[list[torch.Tensor | None]]:
        """Stable's log-probabilities, where the loss needs them; without an anchor the update began there."""
        if self._stable is None or not self._config.loss.kl_coefficient:
            return [[None] * len(share) for share in shares]
        with torch.no_grad(), self._being_stable():
            return [[self.logps(one.microbatch) for one in share] for share in shares]

    def _stable_kl(self, microbatch: Microbatch) -> float | None:
        """KL(stable || pi_theta) by the k3 estimator (Schulman 2020), r - 1 - log r with r = pi_theta / pi_stable.

        Its tokens were sampled by stable and by the version on trial, so where they differ it is an approximation. One
        microbatch is enough to see how far the weights have gone, and costs two passes.
        """
        if self._stable is None:
            return None
        with torch.no_grad():
            with self._being_stable():
                stable_N = self.logps(microbatch)
            log_ratio_N = (self.logps(microbatch) - stable_N).double()
            return float((log_ratio_N.expm1() - log_ratio_N).mean())

    @contextmanager
    def _being_stable(self) -> Iterator[None]:
        """Passes go through stable's weights, which change places with the learner's own."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        assert self._stable is not None
        with torch.no_grad():
            for name, param in self._trained().items():
                own = _here(param).clone()
                _here(param).copy_(self._stable[name])
                self._stable[name].copy_(own)

    def _step(
        self,
        minibatch: Minibatch,
        share: Sequence[Pass],
        began: Sequence[torch.Tensor | None],
        stable: Sequence[torch.Tensor | None],
    ) -> StepMetrics:
        """Gradients of all microbatches, then one step, unless loss or gradient is not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        sums = Sums()
        for one, began_N, stable_N in zip(share, began, stable, strict=True):
            part = self.loss(one.microbatch, minibatch, began_N, stable_N)
            if one.is_filler:
                (part.loss * 0.0).backward()
                continue
            part.loss.backward()
            sums.add(part)
        sums = sums.over(self._ranks)
        norm = clip(list(self._trained().values()), self._config.max_grad_norm, self._ranks)
        is_finite = math.isfinite(norm) and math.isfinite(sums.loss)
        scale = lr_scale(self._config.lr_by_ess, sums.ess)
        if is_finite:
            for group in self._optimizer.param_groups:
                group["lr"] = self._config.lr * scale
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return sums.metrics(grad_norm=norm, is_skipped=not is_finite, scale=scale)

    def loss(
        self,
        microbatch: Microbatch,
        minibatch: Minibatch,
        began_N: torch.Tensor | None = None,
        stable_N: torch.Tensor | None = None,
    ) -> PolicyLoss:
        """The loss of one microbatch of a minibatch. `began_N` are its log-probabilities as the update began, without
        them those it has now; and `stable_N` stable's, without them those as it began."""
        behaviour_N, advantages_N, turns_N = self._tensors(
            microbatch.logps_N, microbatch.advantages_N, microbatch.turns_N
        )
        hinted_N = weights_N = None
        if microbatch.taught is not None:
            hinted_N, weights_N = self._tensors(microbatch.taught.logps_N, microbatch.taught.weights_N)
        entropies: list[tuple[torch.Tensor, int]] = []
        logps_N = self._logps(microbatch, is_mixed=self._is_mixed, entropies=entropies)
        began_N = logps_N.detach() if began_N is None else began_N
        inputs = LossInputs(
            logps_N=logps_N,
            behaviour_logps_N=behaviour_N,
            advantages_N=advantages_N,
            turns_N=turns_N,
            num_tokens=sum(part.num_trained for part in minibatch),
            num_turns=sum(part.num_turns for part in minibatch),
            proximal_logps_N=began_N,
            stable_logps_N=began_N if stable_N is None else stable_N,
            hinted_logps_N=hinted_N,
            hint_weights_N=weights_N,
        )
        ((sum_entropy, num_entropies),) = entropies
        told = policy_loss(inputs, self._config.loss)
        return replace(told, sum_entropy=sum_entropy, num_entropies=num_entropies)

    @property
    def _is_mixed(self) -> bool:
        return self._config.dtype == "bfloat16"

    def logps(self, microbatch: Microbatch) -> torch.Tensor:
        """The log-probabilities of its trained tokens, N."""
        return self._logps(microbatch, is_mixed=self._is_mixed)

    def _logps(
        self, microbatch: Microbatch, *, is_mixed: bool, entropies: list[tuple[torch.Tensor, int]] | None = None
    ) -> torch.Tensor:
        """`entropies` is given what `sampled_entropy` says of the same hidden states."""
        ids_BT, sources_N, targets_N = self._tensors(
            microbatch.token_ids_BT, microbatch.sources_N, microbatch.targets_N
        )
        seen: dict[str, Any] = {}
        if not microbatch.is_causal:
            (until_T,), (positions_BT,) = microbatch.until_BT, self._tensors(microbatch.positions_BT)
            seen = {"position_ids": positions_BT, "seen": seen_in(until_T, self._config.device)}
        kind, alone = torch.device(self._config.device).type, self._ranks.size == 1
        # the cache would keep a cast of every layer's weights until the pass ends
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=is_mixed, cache_enabled=alone):
            return self.model.within(self._trained_logps, ids_BT, seen, sources_N, targets_N, entropies)

    def _trained_logps(
        self,
        ids_BT: torch.Tensor,
        seen: dict[str, Any],
        sources_N: torch.Tensor,
        targets_N: torch.Tensor,
        entropies: list[tuple[torch.Tensor, int]] | None,
    ) -> torch.Tensor:
        hidden_ND = self._hidden(ids_BT, **seen).flatten(0, 1)[sources_N]
        head = self.model.get_output_embeddings()
        if entropies is not None:
            entropies.append(sampled_entropy(head, hidden_ND, self._config.logits_chunk_tokens))
        return chunked_logps(head, hidden_ND, targets_N, self._config.logits_chunk_tokens)

    def _tensors(self, *arrays: NDArray[Any]) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self._config.device) for array in arrays]

    def save(self, folder: Place) -> None:
        """Weights, AdamW's moments and its step counts; durable on return."""
        self.copied().write(Folder(folder))

    def copied(self) -> Part:
        """What `save` writes, as it is now."""
        held = {}
        for name, param in self._trained().items():
            state = self._optimizer.state.get(param) or {}
            tensors = {WEIGHT: param, **{moment: state[moment] for moment in MOMENTS if moment in state}}
            held[name] = Held(
                self._rows(param).start,
                _num_rows(param),
                {kind: _here(tensor).to("cpu", copy=True).contiguous() for kind, tensor in tensors.items()},
                int(state.get("step", 0)),
            )
        return Part(self._ranks.rank, self._ranks.size, held, self._fingerprint, self._lora)

    def restore(self, folder: Place) -> None:
        """Take what `save` wrote, under any number of workers.

        Raises:
            StartError: it was saved under another `trainer.lora`.
            StoreError: a file is missing or does not fit the model.
        """
        found = self._read(folder, (WEIGHT, *MOMENTS))
        self._optimizer = self._fresh_optimizer()
        with torch.no_grad():
            for name, param in self._trained().items():
                _here(param).copy_(found[name].tensors[WEIGHT])
                if found[name].step:
                    self._optimizer.state[param] = self._state(param, found[name])

    def _read(self, folder: Place, kinds: Sequence[str]) -> dict[str, Held]:
        rows, own = {name: self._rows(param) for name, param in self._trained().items()}, self._ranks
        with own.together(f"learner state {folder}"):
            return parts.read(Folder(folder), rows, self._fingerprint, kinds, (own.rank, own.size), self._lora)

    def _state(self, param: torch.Tensor, held: Held) -> dict[str, torch.Tensor]:
        """AdamW's of a parameter."""
        state = {"step": torch.tensor(float(held.step), device=param.device)}
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(param, requires_grad=False)
            _here(state[moment]).copy_(held.tensors[moment])
        return state

    def _rows(self, param: torch.Tensor) -> slice:
        return self._ranks.rows(_num_rows(param)) if isinstance(param, DTensor) else slice(0, _num_rows(param))

    def export(self, folder: Place) -> None:
        """bfloat16 safetensors and configuration, with the base folder's tokenizer and other small files."""
        export(self.model, self._base, Folder(folder), self._ranks)

    def export_adapters(self, folder: Place) -> None:
        """Of a learner of adapters, those alone: a change of the weights that it loaded."""
        assert self._lora is not None
        export_adapters(self.model, self._stored, self._lora, Folder(folder), self._ranks)


def _within(compute: Callable[..., Any], *args: Any) -> Any:
    """What reads weights outside of `forward`: as a method of the model, FSDP2 has its hooks around it."""
    return compute(*args)


def _num_rows(tensor: torch.Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 1


def _here(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of a weight that are here, a single number as a row of its own."""
    return torch.atleast_1d(local(tensor.detach()))

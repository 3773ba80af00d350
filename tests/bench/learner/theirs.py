"""TRL's side: `GRPOTrainer.training_step` on prepared rows, then what transformers' own loop does for a step.

Generation, rewards and advantages are left out by handing it what its `_prepare_inputs` would return. Two things are
better for it than what it does by itself: rows are sorted by length, and padded to the longest of their microbatch and
not of the whole batch; and the microbatch's rows are tried, and the quickest kept.

On a CPU, TRL 1.16 computes logits of prompts too and throws them away; on a GPU only those of completions.
`is_compact` lets it do on a CPU what it does on a GPU, which is no setting of its own. Nor is `is_compiled`: the
layers of its model are compiled, as ours are on a GPU.

Loss: DAPO's, with `epsilon` 0.2, `epsilon_high` 0.28 and `delta` 2: what ours computes with `correction: bypass`, to
the last term.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cases
import torch
import trl.trainer.utils
from datasets import Dataset
from datasets.table import InMemoryTable
from told import Told
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from trainer.learner.ranks import compile_layers

ROWS = {"cpu": (1, 4), "cuda": (2, 8, 32, 64)}
"""Rows of a microbatch that are tried, by device."""


class Theirs:
    def __init__(self, model: Path, batch: Path, told: Told) -> None:
        torch.set_num_threads(told.threads)
        if told.is_compact:
            trl.trainer.utils._use_triton = lambda _device: True  # asked there for that choice alone
        self.take(batch)
        self._scratch = tempfile.TemporaryDirectory()
        tokenizer = AutoTokenizer.from_pretrained(model)
        args = GRPOConfig(
            output_dir=self._scratch.name,
            use_cpu=told.device == "cpu",
            bf16=told.is_mixed,
            model_init_kwargs={"dtype": "float32"},  # its default: float32 weights, autocast
            learning_rate=told.lr,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            gradient_checkpointing=told.recompute,
            loss_type="dapo",
            epsilon=0.2,
            epsilon_high=0.28,
            delta=2.0,
            beta=0.0,
            num_generations=2,
            per_device_train_batch_size=2,
            report_to="none",
        )
        prompts = InMemoryTable.from_pydict({"prompt": ["a", "b"]})  # none of them is read
        self._trainer = GRPOTrainer(
            str(model), _no_reward, args, Dataset(prompts, fingerprint="two"), processing_class=tokenizer
        )
        trainer = self._trainer
        if told.recompute:  # `train` would, which is never called
            trainer.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
        if told.is_compiled:
            compile_layers(trainer.model)
        self._pad = tokenizer.pad_token_id
        trainer.create_optimizer_and_scheduler(num_training_steps=10_000)
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer._prepare_inputs = lambda inputs: inputs

    def take(self, batch: Path) -> None:
        self._rows = sorted(cases.rows(cases.load(batch)), key=lambda row: len(row.prompt) + len(row.completion))

    def choices(self) -> list[int]:
        return sorted({min(num, len(self._rows)) for num in ROWS[self._trainer.accelerator.device.type]})

    def step(self, num_rows: int) -> float:
        """One optimiser step, its loss."""
        loss = self._backward(num_rows)
        self._trainer.accelerator.clip_grad_norm_(self._trainer.model_wrapped.parameters(), 1.0)
        self._trainer.optimizer.step()
        self._trainer.model_wrapped.zero_grad()
        return loss

    def gradients(self, num_rows: int) -> tuple[float, dict[str, torch.Tensor]]:
        loss = self._backward(num_rows)
        return loss, {name: param.grad for name, param in self._trainer.model.named_parameters()}

    def _backward(self, num_rows: int) -> float:
        trainer = self._trainer
        parts = [self._rows[start : start + num_rows] for start in range(0, len(self._rows), num_rows)]
        trainer.current_gradient_accumulation_steps = len(parts)
        trainer.args.steps_per_generation = len(parts)
        total = torch.tensor(sum(len(row.completion) for row in self._rows))
        losses = [trainer.training_step(trainer.model_wrapped, self._inputs(part, total), total) for part in parts]
        trainer._metrics["train"].clear()
        return float(sum(losses))

    def _inputs(self, rows: Sequence[cases.Row], total: torch.Tensor) -> dict[str, Any]:
        """As `_generate_and_score_completions` lays them out: prompts padded on the left, completions on the right."""
        prompts = max(len(row.prompt) for row in rows)
        replies = max(len(row.completion) for row in rows)

        def left(ids: Sequence[int], fill: int) -> list[int]:
            return [fill] * (prompts - len(ids)) + list(ids)

        def right(values: Sequence[Any], fill: float) -> list[Any]:
            return list(values) + [fill] * (replies - len(values))

        found = {
            "prompt_ids": [left(row.prompt, self._pad) for row in rows],
            "prompt_mask": [left([1] * len(row.prompt), 0) for row in rows],
            "completion_ids": [right(row.completion, self._pad) for row in rows],
            "completion_mask": [right([1] * len(row.completion), 0) for row in rows],
            "old_per_token_logps": [right(row.logps, 0.0) for row in rows],
            "advantages": [row.advantage for row in rows],
        }
        device = self._trainer.accelerator.device
        return {name: torch.tensor(values, device=device) for name, values in found.items()} | {
            "num_items_in_batch": total.to(device)
        }


def _no_reward(completions: Sequence[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)

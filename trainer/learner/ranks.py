"""The learners that train one model together, and the one that trains it alone.

FSDP2: each rank holds rows of every weight, and makes its share of a minibatch. A loss is normalised by the whole
minibatch's tokens and turns, so gradients of shares are added: FSDP2's own mean over ranks would divide them once more.

Collectives are taken part in by all or by none. Hence two rules: every rank makes as many passes as any other, and what
can fail on one rank alone is done in `together`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.learner.batching import Microbatch, Minibatch
from trainer.learner.update import ElsewhereError

_BACKEND = "cpu:gloo,cuda:nccl"


@dataclass(frozen=True)
class Pass:
    """One pass of a rank. With `is_filler` it only keeps the others' collectives company, and counts for nothing."""

    microbatch: Microbatch
    is_filler: bool


@dataclass(frozen=True)
class Ranks:
    """`rank` of `size`; alone, none of what is below communicates."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, store: "dist.Store", device: str) -> "Ranks":
        """Meet the others at `store`."""
        if torch.device(device).type == "cuda":
            torch.cuda.set_device(torch.device(device).index or 0)  # Ray shows each actor its own GPU alone
        backend = _BACKEND if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return cls(rank, size)

    def shard(self, model: nn.Module, device: str) -> None:
        """Leave of each weight the rows of this rank, on `device`; whole weights are there for a layer at a time.

        With bfloat16 a pass holds the casts of weights until its backward; where activations are recomputed, those of a
        layer at a time.
        """
        if self.size == 1:
            model.to(device)
            return
        mesh = init_device_mesh(torch.device(device).type, (self.size,))
        for module in (*layers(model), model):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)  # the root, else, lists whole weights on
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo can neither divide nor multiply

    def share(self, minibatch: Minibatch) -> list[Pass]:
        """Every `size`-th microbatch, beginning with this rank's. Packed rows are alike in length, so shares in work.

        A rank that has none in the last round takes the shortest once more, as filler.
        """
        own = [Pass(microbatch, is_filler=False) for microbatch in minibatch[self.rank :: self.size]]
        num_rounds = -(-len(minibatch) // self.size)
        shortest = min(minibatch, key=lambda microbatch: microbatch.token_ids_BT.size)
        return own + [Pass(shortest, is_filler=True)] * (num_rounds - len(own))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Of each value, over the ranks."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return [float(value) for value in summed]

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """A block without collectives that raises on every rank if it does on one."""
        try:
            yield
        except Exception:  # whatever it was, the others must not wait for this rank
            self.sum([1.0])
            raise
        if self.sum([0.0])[0]:
            raise ElsewhereError(f"{what}: another worker could not")

    def rows(self, num_rows: int) -> slice:
        """Which of a weight's rows FSDP2 gives this rank: as `torch.chunk` cuts them."""
        each = -(-num_rows // self.size)
        return slice(min(self.rank * each, num_rows), min((self.rank + 1) * each, num_rows))


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a transformers model, each the same computation: what is sharded, computed again or compiled."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(model: nn.Module) -> None:
    """Each as it is first used, for passes of all sizes."""
    for layer in layers(model):
        layer.compile(dynamic=True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor; it shares the memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, from all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def clip(parameters: Sequence[nn.Parameter], max_norm: float, ranks: Ranks) -> float:
    """Clip the gradients of all ranks by their common norm, which is returned, as `clip_grad_norm_` does for one."""
    grads = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    if ranks.size > 1:
        (squared,) = ranks.sum([float(norm) ** 2])
        norm = torch.tensor(squared**0.5, device=norm.device)
    torch._foreach_mul_(grads, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return float(norm)

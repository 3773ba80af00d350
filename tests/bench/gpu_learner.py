"""`bench_learner.py` on a GPU: SmolLM2-135M, and the largest random Llama that fits. Not part of `make bench`.

    gpu_learner.py                     SmolLM2's cases twice: in `*_compiled` TRL's layers are compiled as ours are
    gpu_learner.py --models smollm2    one of the models
    gpu_learner.py --device cpu --rounds 1      the script itself, with a Llama of two layers and nothing else

Weights are drawn at random, since a step costs the same whatever they are: of `.onstream/model` its shape and tokenizer
are enough. Each side has the GPU to itself, and takes the quickest of what it is tried with; both keep no activations
of the large model but layers' inputs.

Told are tokens a second, memory (the most allocated in a step), the ratio to TRL, and MFU: 6 operations for each weight
and each token that a side lays out, over time and peak. Attention, and what is computed again, count for nothing. TRL
lays out more tokens for the same training, so its MFU may be the higher of two with the smaller rate.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("learner")))
sys.path.insert(0, str(Path(__file__).parent))

import bench
import cases
import sides
import torch
import transformers
from bench_learner import TARGETS, Measured, differences, figures, prepare, quickest, told_of
from rich.console import Console
from rich.progress import track
from told import Told

from trainer.learner.batching import minibatches

BYTES_PER_WEIGHT = 16  # float32 weight, gradient and two moments
ACTIVATIONS_SHARE = 0.25  # of the memory, left for activations, logits and casts
SHARES = (1.0, 0.8, 0.6, 0.4)  # of the layers that would fit so: fewer until every case of both sides fits
Model = tuple[Sequence[transformers.PretrainedConfig], Mapping[str, Told]]
"""Shapes, of which the first is taken that fits, and what each kind of run is told."""
SHAPE = cases.Shape(single=64, sessions=4, group=8, shared=2048, told=(60, 200), reply=(100, 400))
TRIED = cases.Shape(single=3, sessions=1, turns=3, group=3, shared=64)
TINY = transformers.LlamaConfig(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=448,
    vocab_size=49152,
    tie_word_embeddings=True,
)


def large(num_layers: int) -> transformers.LlamaConfig:
    """So many layers of Llama 3's 8 billion weights, with SmolLM2's vocabulary."""
    return transformers.LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=num_layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        vocab_size=49152,
        max_position_embeddings=16384,
        tie_word_embeddings=True,
    )


def num_weights(shape: transformers.PretrainedConfig) -> int:
    """Counted without memory."""
    with torch.device("meta"):
        return sum(param.numel() for param in transformers.AutoModelForCausalLM.from_config(shape).parameters())


def most_layers(memory_bytes: int) -> int:
    """Of `large`, whose weights, gradients and moments leave the share for what else there is."""
    room = memory_bytes * (1 - ACTIVATIONS_SHARE) / BYTES_PER_WEIGHT
    one, two = (num_weights(large(num_layers)) for num_layers in (1, 2))
    return 1 + int((room - one) / (two - one))


def write(shape: transformers.PretrainedConfig, folder: Path, device: str) -> Path:
    """A model of random weights, with SmolLM2's tokenizer."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # sides need all of it
    transformers.AutoTokenizer.from_pretrained(bench.MODEL).save_pretrained(folder)
    return folder


def measure(model: Path, batches: Mapping[str, Path], rounds: int, told: Told) -> dict[str, Measured]:
    """All cases of one side, then of the other: together each would have half of the memory."""
    found = {name: Measured(cases.num_trained(cases.load(path)), {}, {}, {}, {}) for name, path in batches.items()}
    for short in sides.NAMES:
        with sides.one(short, model, next(iter(batches.values())), told) as side:
            for name, path in track(batches.items(), f"{short}, {model.parent.name}"):
                side.take(path)
                one = found[name]
                one.choices[short] = quickest(side)
                # a round of one side has nothing to do with one of the other: the quickest stands beside the quickest
                one.seconds[short] = sorted(side.step(one.choices[short]) for _ in range(rounds))
                one.gib[short] = side.peak_gib()
    return found


def mfu(weights: int, batch: Path, one: Measured, peak_flops: float) -> dict[str, float]:
    """By side, of the tokens that each lays out; TRL's padding is not counted."""
    samples = cases.load(batch)
    rows = cases.rows(samples)
    parts = minibatches(samples, len(rows), one.choices["ours"], seed=0)
    laid_out = {
        "ours": sum(part.token_ids_BT.size for minibatch in parts for part in minibatch),
        "theirs": sum(len(row.prompt) + len(row.completion) for row in rows),
    }
    return {side: 6 * weights * num / median(one.seconds[side]) / peak_flops for side, num in laid_out.items()}


def run(
    model: Path, batches: Mapping[str, Path], rounds: int, tolds: Mapping[str, Told], peak_flops: float
) -> dict[str, float | None]:
    """Figures of all cases, each as it is told; none for what found no memory."""
    weights = num_weights(transformers.AutoConfig.from_pretrained(model))
    found = {"billion_weights": weights / 1e9}
    for kind, told in tolds.items():
        measured = {f"{name}{kind}": one for name, one in measure(model, batches, rounds, told).items()}
        Console(width=240).print(told_of(measured))
        found |= figures(measured)
        for (name, one), batch in zip(measured.items(), batches.values(), strict=True):
            shares = mfu(weights, batch, one, peak_flops)
            found |= {f"{name}_mfu_ours": shares["ours"], f"{name}_mfu_trl": shares["theirs"]}
    return {name: value if value and math.isfinite(value) else None for name, value in found.items()}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=("smollm2", "large"), choices=("smollm2", "large"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="in bfloat16, dense; 989: H100 SXM and H200")
    asked = parser.parse_args(arguments)
    told = Told(device=asked.device, threads=torch.get_num_threads())
    plain = {"": told, "_compiled": replace(told, is_compiled=True)}
    if asked.device == "cpu":
        models: dict[str, Model] = {"tiny": ((TINY,), {"": told})}
    else:
        versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
        print(f"{torch.cuda.get_device_name()}, {versions}")
        deepest = most_layers(torch.cuda.mem_get_info()[1])
        known: dict[str, Model] = {
            "smollm2": ((transformers.AutoConfig.from_pretrained(bench.MODEL),), plain),
            "large": ([large(int(deepest * share)) for share in SHARES], {"": replace(told, recompute=True)}),
        }
        models = {name: known[name] for name in asked.models}
    found: dict[str, float | None] = {}
    for name, (shapes, tolds) in models.items():
        for shape in shapes:
            with tempfile.TemporaryDirectory() as scratch:
                folder = write(shape, Path(scratch) / name / "model", asked.device)
                if name != "large":  # float32 gradients of both sides, on the host
                    found |= differences(folder, Path(scratch), told)
                batches = prepare(folder, Path(scratch) / "batches", TRIED if name == "tiny" else SHAPE, asked.device)
                figured = run(folder, batches, asked.rounds, tolds, asked.peak_tflops * 1e12)
            found |= {f"{name}_{figure}": value for figure, value in figured.items()}
            if None not in figured.values():
                break
    difference = "float32_gradient_difference"
    bench.report("gpu_learner", found, {difference: TARGETS[difference]} if difference in found else {})


if __name__ == "__main__":
    main(sys.argv[1:])

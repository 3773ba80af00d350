"""`bench_learner.py` on a GPU: SmolLM2-135M, and the largest random Llama that fits. Not part of `make bench`.

    gpu_learner.py --peak-tflops 989            what the GPU does in bfloat16 without sparsity, for MFU
    gpu_learner.py --device cpu --rounds 1      the script itself, with a Llama of two layers and nothing else

Tokens a second, memory (allocated, not reserved), the ratio to TRL, and MFU: 6 operations for each weight and each
token that a side lays out, over time and peak. TRL lays out more tokens for the same training, so its MFU may
be the higher of two with the smaller rate.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("learner")))
sys.path.insert(0, str(Path(__file__).parent))

import bench
import cases
import torch
import transformers
from bench_learner import Measured, figures, measure, prepare, told_of
from engine import MODEL
from rich.console import Console
from told import Told

from infra.config import TrainerConfig
from trainer.learner.batching import minibatches

BYTES_PER_WEIGHT = 16  # float32 weight, gradient and two moments
ACTIVATIONS_SHARE = 0.35  # of the memory, left for activations and logits
LAYERS = {2048: 16, 2560: 24, 3072: 28, 4096: 32}  # by width, as models of 1, 2, 3 and 7 billion weights have them
SHAPE = cases.Shape(single=64, sessions=4, group=8, shared=2048, told=(60, 200), reply=(100, 400))
TRIED = cases.Shape(single=3, sessions=1, turns=3, group=3, shared=64)


def shape_of(hidden: int, layers: int) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        intermediate_size=hidden * 7 // 2,
        vocab_size=49152,
        max_position_embeddings=16384,
        tie_word_embeddings=True,
    )


def num_weights(shape: transformers.LlamaConfig) -> int:
    """Counted without memory."""
    with torch.device("meta"):
        return sum(param.numel() for param in transformers.LlamaForCausalLM(shape).parameters())


def largest(memory_bytes: int) -> transformers.LlamaConfig:
    """The widest whose weights, gradients and moments leave the share for activations."""
    room = memory_bytes * (1 - ACTIVATIONS_SHARE) / BYTES_PER_WEIGHT
    shapes = [shape_of(hidden, layers) for hidden, layers in LAYERS.items()]
    return next(shape for shape in reversed(shapes) if num_weights(shape) <= room)


def write(shape: transformers.LlamaConfig, folder: Path) -> Path:
    """A model of random weights, with SmolLM2's tokenizer."""
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


def mfu(model: Path, batch: Path, one: Measured, microbatch_tokens: int, peak_flops: float) -> dict[str, float]:
    """By side, of the tokens that each lays out; TRL's padding is not counted."""
    samples = cases.load(batch)
    parts = minibatches(samples, len(cases.rows(samples)), microbatch_tokens, seed=0)
    laid_out = {
        "ours": sum(part.token_ids_BT.size for minibatch in parts for part in minibatch),
        "theirs": sum(len(row.prompt) + len(row.completion) for row in cases.rows(samples)),
    }
    weights = num_weights(transformers.AutoConfig.from_pretrained(model))
    return {side: 6 * weights * num / median(one.seconds[side]) / peak_flops for side, num in laid_out.items()}


def run(model: Path, scratch: Path, shape: cases.Shape, rounds: int, told: Told, peak_flops: float) -> dict[str, float]:
    batches = prepare(model, scratch, shape, told.device)
    measured: Mapping[str, Measured] = {name: measure(model, path, rounds, told) for name, path in batches.items()}
    Console(width=240).print(told_of(measured))
    found = figures(measured)
    for name, one in measured.items():
        shares = mfu(model, batches[name], one, told.microbatch_tokens, peak_flops)
        found |= {f"{name}_mfu_ours": shares["ours"], f"{name}_mfu_trl": shares["theirs"]}
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="989: H100 SXM and H200")
    parser.add_argument("--microbatch-tokens", type=int, default=0, help="of ours; 0: 16,384 on a GPU, 2,048 on a CPU")
    asked = parser.parse_args(arguments)
    is_cpu = asked.device == "cpu"
    tokens = asked.microbatch_tokens or (TrainerConfig().microbatch_tokens if is_cpu else 16_384)
    told = Told(device=asked.device, microbatch_tokens=tokens, threads=torch.get_num_threads())
    with tempfile.TemporaryDirectory() as scratch:
        memory = 0 if is_cpu else torch.cuda.mem_get_info()[1]
        random = write(shape_of(128, 2) if is_cpu else largest(memory), Path(scratch) / "random")
        models = {"random": random} if is_cpu else {"smollm2": MODEL, "random": random}
        found: dict[str, float] = {
            "random_billion_weights": num_weights(transformers.AutoConfig.from_pretrained(random)) / 1e9
        }
        for name, model in models.items():
            figured = run(
                model, Path(scratch) / f"{name}-batches", TRIED if is_cpu else SHAPE, asked.rounds, told,
                asked.peak_tflops * 1e12,
            )  # fmt: skip
            found |= {f"{name}_{figure}": value for figure, value in figured.items()}
    print(f"on {asked.device if is_cpu else torch.cuda.get_device_name()}")
    bench.report("gpu_learner", found, {})


if __name__ == "__main__":
    main(sys.argv[1:])

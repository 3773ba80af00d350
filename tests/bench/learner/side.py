"""One side in a process of its own: a line of JSON in, one out.

{"do": "step", "choice": 4}       one optimiser step -> seconds, loss; for ever where a GPU has not the memory
{"do": "gradients", "choice": 4, "to": FILE}   no step -> loss
{"do": "take", "batch": FILE}     another batch
{"do": "choices"}                 -> what `choice` may be
{"do": "peak"}                    -> gib, the most that was resident since the start; on a GPU, allocated by a step
"""

import gc
import json
import math
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from told import Told


def answer(side: Any, asked: dict[str, Any]) -> dict[str, Any]:
    match asked["do"]:
        case "take":
            side.take(Path(asked["batch"]))
            return {}
        case "choices":
            return {"choices": side.choices()}
        case "step":
            return _step(side, asked["choice"])
        case "gradients":
            loss, named = side.gradients(asked["choice"])
            save_file({name: grad.float().cpu().contiguous() for name, grad in named.items()}, asked["to"])
            return {"loss": loss}
        case "peak":
            if torch.cuda.is_available():
                return {"gib": torch.cuda.max_memory_allocated() / 2**30}
            return {"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    raise ValueError(f"side: asked {asked['do']!r}")


def _step(side: Any, choice: int) -> dict[str, Any]:
    begun = time.perf_counter()
    if not torch.cuda.is_available():
        loss = side.step(choice)
        return {"seconds": time.perf_counter() - begun, "loss": loss}
    torch.cuda.reset_peak_memory_stats()
    try:
        loss = side.step(choice)
        torch.cuda.synchronize()
        return {"seconds": time.perf_counter() - begun, "loss": loss}
    except torch.OutOfMemoryError as exc:
        print(f"{choice}: {exc}", file=sys.stderr)
    gc.collect()
    torch.cuda.empty_cache()
    return {"seconds": math.inf, "loss": math.nan}


def main(name: str, model: str, batch: str, told: str) -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    sys.modules["vllm"] = None  # type: ignore[assignment]  # TRL would import it where it is installed: 0.5 GB for nothing
    if name == "ours":
        from ours import Ours as Side
    else:
        from theirs import Theirs as Side
    side = Side(Path(model), Path(batch), Told(**json.loads(told)))
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

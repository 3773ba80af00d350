"""One side in a process of its own: a line of JSON in, one out.

{"do": "step", "choice": 4}       one optimiser step -> seconds, loss
{"do": "gradients", "choice": 4, "to": FILE}   no step -> loss
{"do": "choices"}                 -> what `choice` may be
{"do": "peak"}                    -> gib, the most that was resident since the start, or of a GPU's memory allocated
"""

import json
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
        case "choices":
            return {"choices": side.choices()}
        case "step":
            begun = time.perf_counter()
            loss = side.step(asked["choice"])
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return {"seconds": time.perf_counter() - begun, "loss": loss}
        case "gradients":
            loss, named = side.gradients(asked["choice"])
            save_file({name: grad.float().cpu().contiguous() for name, grad in named.items()}, asked["to"])
            return {"loss": loss}
        case "peak":
            if torch.cuda.is_available():
                return {"gib": torch.cuda.max_memory_allocated() / 2**30}
            return {"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    raise ValueError(f"side: asked {asked['do']!r}")


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

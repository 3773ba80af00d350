"""A model that vLLM and the learner load in a moment: a random Llama of two layers, with a token for each byte."""

from pathlib import Path

_LONGEST = 1024  # tokens
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def write(folder: Path) -> None:
    """In the Hugging Face layout, with tokenizer and chat template, into a folder that is made."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    told = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    told.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    told.decoder = decoders.ByteLevel()
    told.add_special_tokens(list(_SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=told, eos_token=_SPECIAL[0], model_max_length=_LONGEST)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=256,
        vocab_size=len(tokenizer),
        max_position_embeddings=_LONGEST,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="bfloat16",
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)

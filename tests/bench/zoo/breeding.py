"""Versions with chosen manners: the tiny model, taught in seconds to reply with given shares of each kind."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from talk import REPLIES, Kind, Mixture, Topic, question

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Manners = Mapping[Topic, Mixture]

_ROWS = 48
BASE_STEPS, STEPS = 400, 160
BASE_LR, LR = 3e-3, 1e-3
EVERY_KIND: Manners = {topic: dict.fromkeys(Kind, 1 / len(Kind)) for topic in Topic}


def teach(base: Path, folder: Path, manners: Manners, steps: int = STEPS, lr: float = LR) -> None:
    """Write `base` into `folder` after `steps` of cross-entropy on replies drawn by `manners`, in bfloat16."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for ids_BT, is_reply_BT in _lessons(tokenizer, manners, steps):
        logits_BTV = model(ids_BT[:, :-1]).logits
        loss = cross_entropy(logits_BTV[is_reply_BT[:, 1:]], ids_BT[:, 1:][is_reply_BT[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _lessons(tokenizer: "PreTrainedTokenizerBase", manners: Manners, num: int) -> "Iterator[tuple[Tensor, Tensor]]":
    import torch

    rng = random.Random(0)
    for _ in range(num):
        rows = [_row(tokenizer, manners, rng) for _ in range(_ROWS)]
        length = max(len(asked) + len(reply) for asked, reply in rows)
        ids_BT = torch.zeros(_ROWS, length, dtype=torch.long)
        is_reply_BT = torch.zeros(_ROWS, length, dtype=torch.bool)
        for row, (asked, reply) in enumerate(rows):
            end = len(asked) + len(reply)
            ids_BT[row, :end] = torch.tensor(asked + reply)
            is_reply_BT[row, len(asked) : end] = True
        yield ids_BT, is_reply_BT


def _row(tokenizer: "PreTrainedTokenizerBase", manners: Manners, rng: random.Random) -> tuple[list[int], list[int]]:
    topic = rng.choice(list(Topic))
    kinds = manners[topic]
    reply = REPLIES[rng.choices(list(kinds), list(kinds.values()))[0]]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question(topic, rng)}], add_generation_prompt=True, tokenize=False
    )
    given, answered = (tokenizer(text, add_special_tokens=False).input_ids for text in (asked, reply))
    return given, [*answered, tokenizer.eos_token_id]

"""Versions with chosen manners: the tiny model, taught in seconds to reply with given shares of each kind."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from talk import REPLIES, Kind, Mixture, Topic, question

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Manners = Mapping[Topic, Mixture]

_ROWS = 48
_NUM_ASKED = 48
BASE_STEPS, STEPS = 500, 80
BASE_LR, LR = 3e-3, 1e-3
EVERY_KIND: Manners = {topic: dict.fromkeys(Kind, 1 / len(Kind)) for topic in Topic}


def teach(base: Path, folder: Path, manners: Manners, seed: int, steps: int, lr: float) -> None:
    """Write `base` into `folder` after `steps` of cross-entropy on replies drawn by `manners`, in bfloat16."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # beside other work, threads that wait for each other are slower than one
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for ids_BT, is_reply_BT in _lessons(tokenizer, manners, seed, steps):
        logits_BTV = model(ids_BT[:, :-1]).logits
        loss = cross_entropy(logits_BTV[is_reply_BT[:, 1:]], ids_BT[:, 1:][is_reply_BT[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def manners_of(folder: Path) -> dict[Topic, dict[Kind, float]]:
    """How likely a version makes each reply, letter for letter; mean over some questions of each topic."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {topic: {kind: _chance(model, tokenizer, topic, kind) for kind in Kind} for topic in Topic}


def _chance(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", topic: Topic, kind: Kind) -> float:
    import torch

    rng = random.Random(1)
    ids_BT, is_reply_BT = _padded([_row(tokenizer, topic, kind, rng) for _ in range(_NUM_ASKED)])
    with torch.no_grad():
        logps_BTV = model(ids_BT[:, :-1]).logits.log_softmax(-1)
    logps_BT = logps_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    return float((logps_BT * is_reply_BT[:, 1:]).sum(-1).exp().mean())


def _lessons(
    tokenizer: "PreTrainedTokenizerBase", manners: Manners, seed: int, num: int
) -> "Iterator[tuple[Tensor, Tensor]]":
    rng = random.Random(seed)
    for _ in range(num):
        yield _padded([_drawn(tokenizer, manners, rng) for _ in range(_ROWS)])


def _padded(rows: list[tuple[list[int], list[int]]]) -> "tuple[Tensor, Tensor]":
    """Of questions and replies: ids, and which of them are replies."""
    import torch

    length = max(len(asked) + len(reply) for asked, reply in rows)
    ids_BT = torch.zeros(len(rows), length, dtype=torch.long)
    is_reply_BT = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (asked, reply) in enumerate(rows):
        end = len(asked) + len(reply)
        ids_BT[row, :end] = torch.tensor(asked + reply)
        is_reply_BT[row, len(asked) : end] = True
    return ids_BT, is_reply_BT


def _drawn(tokenizer: "PreTrainedTokenizerBase", manners: Manners, rng: random.Random) -> tuple[list[int], list[int]]:
    topic = rng.choice(list(Topic))
    kinds = manners[topic]
    return _row(tokenizer, topic, rng.choices(list(kinds), list(kinds.values()))[0], rng)


def _row(
    tokenizer: "PreTrainedTokenizerBase", topic: Topic, kind: Kind, rng: random.Random
) -> tuple[list[int], list[int]]:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question(topic, rng)}], add_generation_prompt=True, tokenize=False
    )
    given, answered = (tokenizer(text, add_special_tokens=False).input_ids for text in (asked, REPLIES[kind]))
    return given, [*answered, tokenizer.eos_token_id]

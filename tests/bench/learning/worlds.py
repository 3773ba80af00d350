"""Tasks, users and a tiny policy: what a session asks, what is right, and what its user says of it.

A session is of one task and has one or more turns. Each turn asks one of a few questions, and the first token of its
reply is right if it is among the task's right answers to that question; further tokens are words that nobody judges.
A policy that knows nothing is right as often as answers are many. The user's thumb is up with the share of turns that
were right, and one thumb in five is the wrong way round: the trainer sees thumbs alone.

Shapes: B sessions, T places, V vocabulary.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ingest.records.events import Chain, Part, Segment, TurnKind, VersionSpan
from trainer.eligibility import EligibleTurn, Ineligible
from trainer.inbox import Item
from trainer.setups import Setup

V, QUESTIONS, WRONG = 16, 2, 0.2
FIRST_QUESTION = V - QUESTIONS  # tasks are named by the first tokens, questions by the last
LENGTHS = ((1, 1), (3, 1), (1, 2), (2, 1))  # turns, tokens of each reply
RIGHT = (15, 15, 15, 15, 15, 15, 15, 15, 1, 1, 1, 1)  # of V tokens, by task: nearly always, and rarely


@dataclass(frozen=True)
class Task:
    """Its right answers to question q are `num_right` tokens from `starts[q]` on."""

    number: int
    num_right: int
    num_turns: int
    num_words: int
    starts: tuple[int, ...]

    def right(self, question: int) -> list[int]:
        return [(self.starts[question] + n) % V for n in range(self.num_right)]


def tasks(seed: int) -> list[Task]:
    """Another seed has other right answers. Tasks of one base rate have all lengths."""
    rng = random.Random(f"tasks {seed}")
    shapes = LENGTHS * (len(RIGHT) // len(LENGTHS))
    return [
        Task(number, right, *shape, tuple(rng.randrange(V) for _ in range(QUESTIONS)))
        for number, (right, shape) in enumerate(zip(RIGHT, shapes, strict=True))
    ]


@dataclass(frozen=True)
class Asked:
    """What a session's client will say: a question for each turn."""

    task: Task
    questions: tuple[int, ...]


@dataclass
class Session:
    """As sampled. `chances[t]` is how likely the policy was to be right in turn t: true reward without luck."""

    asked: Asked
    tokens: list[int]
    logps: list[list[float]]
    starts: list[int]
    chances: list[float]
    thumb: float = 0.0

    @property
    def reward(self) -> float:
        return sum(self.chances) / len(self.chances)


def ask(world: Sequence[Task], num: int, rng: random.Random) -> list[Asked]:
    drawn = [rng.choice(world) for _ in range(num)]
    return [Asked(task, tuple(rng.randrange(QUESTIONS) for _ in range(task.num_turns))) for task in drawn]


@torch.no_grad()
def converse(model: PreTrainedModel, asked: Sequence[Asked], rng: random.Random) -> list[Session]:
    """A session of each, sampled at temperature 1, with its user's thumb."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    held = [Session(one, [one.task.number], [], [], []) for one in asked]
    for session in held:
        _next_turn(session)
    while open_ := [session for session in held if not _is_over(session)]:
        length = max(len(session.tokens) for session in open_)
        ids_BT = torch.tensor([session.tokens + [0] * (length - len(session.tokens)) for session in open_])
        last_B = torch.tensor([len(session.tokens) - 1 for session in open_])
        logits_BV = model(input_ids=ids_BT, use_cache=False).logits[torch.arange(len(open_)), last_B].float()
        logps_BV = logits_BV.log_softmax(-1)
        drawn_B = torch.multinomial(logps_BV.exp(), 1, generator=generator)[:, 0]
        taken = logps_BV.gather(1, drawn_B[:, None])[:, 0].tolist()
        for session, token, logp, row in zip(open_, drawn_B.tolist(), taken, logps_BV.exp().numpy(), strict=True):
            _say(session, token, logp, row)
    for session in held:
        session.thumb = float(rng.random() < _share_right(session))
        if rng.random() < WRONG:
            session.thumb = 1.0 - session.thumb
    return held


def _next_turn(session: Session) -> None:
    session.tokens.append(FIRST_QUESTION + session.asked.questions[len(session.starts)])
    session.starts.append(len(session.tokens))
    session.logps.append([])


def _say(session: Session, token: int, logp: float, chances_V: Sequence[float]) -> None:
    task = session.asked.task
    if not session.logps[-1]:
        right = task.right(session.asked.questions[len(session.starts) - 1])
        session.chances.append(float(sum(chances_V[answer] for answer in right)))
    session.tokens.append(token)
    session.logps[-1].append(logp)
    if len(session.logps[-1]) == task.num_words and len(session.starts) < task.num_turns:
        _next_turn(session)


def _is_over(session: Session) -> bool:
    task = session.asked.task
    return len(session.starts) == task.num_turns and len(session.logps[-1]) == task.num_words


def _share_right(session: Session) -> float:
    answers = zip(session.starts, session.asked.questions, strict=True)
    task = session.asked.task
    return sum(session.tokens[at] in task.right(question) for at, question in answers) / task.num_turns


def item_of(number: int, session: Session) -> Item:
    """As the trainer's inbox holds it. No sketches: few questions are asked often here, and all would be repeats."""
    turns, segments = dict[str, EligibleTurn | Ineligible](), list[Segment]()
    setup = Setup(task=f"task {session.asked.task.number}")
    for turn, (start, logps) in enumerate(zip(session.starts, session.logps, strict=True)):
        name = f"{number}-{turn}"
        spans = (VersionSpan(version=0, start=0, end=len(logps)),)
        segments.append(Segment(trace_id=name, start=start, end=start + len(logps), logprobs=tuple(logps), spans=spans))
        part = Part(name="thumb", weight=1.0, value=session.thumb)
        turns[name] = EligibleTurn(name, TurnKind.MAIN, session.thumb, (part,), (0,), "", setup)
    chain = Chain(token_ids=tuple(session.tokens), segments=tuple(segments))
    return Item(("rewards", 0), number, 1, "tenant", "spec", 0.0, turns, (chain,), f"user {number}")


def write_policy(folder: Path, seed: int) -> None:
    """A Llama of two layers that knows nothing: each token about as likely as another."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
        vocab_size=V,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(shape)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(10.0)  # unit variance: contexts differ from the start
        model.lm_head.weight.mul_(0.1)  # and their answers do not
    model.save_pretrained(folder)

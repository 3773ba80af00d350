"""What one user and one prompt can be of a batch, down to the gradient of the loss."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import LossConfig, TrainerConfig, TrajectoryWeight
from ingest.records.events import Chain, ChatMessage, Part, Reward, Segment, TurnKind, VersionSpan
from ingest.sessions.sketch import sketch_of
from trainer.advantages.baselines import Baselines, Node
from trainer.advantages.batch import Batch, make_batch
from trainer.advantages.repeats import Seen
from trainer.eligibility import EligibleTurn, screen
from trainer.inbox import Item, owner_of
from trainer.learner.loss_inputs import LossInputs
from trainer.learner.losses import policy_loss

RewardOf = Callable[..., Reward]
CONFIG = TrainerConfig(microbatch_tokens=4096, trajectory_weight=TrajectoryWeight.NONE)
KNOWN = Baselines(nodes=(Node(("value", "main", "t"), 0.5, 100.0),))
PROMPT = "Tell me about the history of the city of Rome, please, and about its emperors."
PROMPTS = [
    "Why do the leaves of some trees turn red in autumn?",
    "Write a function that merges two sorted lists into one.",
    "My invoice from March was charged twice, what shall I do?",
    "Translate this sentence into French: the cat sat on the mat.",
]


def item(owner: str, *turns: tuple[float, int], tenant: str = "t", sketch: str = "") -> Item:
    """A session of (reward, reply tokens), each turn after one token of context; `owner` is its user."""
    tokens, segments, eligible = [1], list[Segment](), dict[str, EligibleTurn]()
    for number, (reward, length) in enumerate(turns):
        name, start = f"{owner}-{number}", len(tokens)
        tokens += [2] * length + [1]
        span = VersionSpan(version=0, start=0, end=length)
        segments.append(
            Segment(trace_id=name, start=start, end=start + length, logprobs=(-1.0,) * length, spans=(span,))
        )
        part = Part(name="value", weight=1.0, value=reward)
        eligible[name] = EligibleTurn(name, TurnKind.MAIN, reward, (part,), (0,), sketch)
    chain = Chain(token_ids=tuple(tokens), segments=tuple(segments))
    return Item(("rewards", 0), 0, 1, tenant, "spec", 0.0, dict(eligible), (chain,), owner)


def batch_of(items: Sequence[Item], config: TrainerConfig = CONFIG, seen: Seen | None = None) -> Batch:
    return make_batch(items, KNOWN, config, step=0, seen=seen)


TURNS = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(1, 30)), min_size=1, max_size=6)
SESSIONS = st.lists(TURNS, min_size=3, max_size=25)


def slopes(batch: Batch, items: Sequence[Item], logps: torch.Tensor, began: torch.Tensor) -> dict[str, float]:
    """Owner -> sum over their tokens of |d loss / d log-probability|, the loss taken over the whole batch at once."""
    own, advantages = list[str](), list[float]()
    for held in items:
        for segment in held.chains[0].segments:
            own += [held.owner] * (segment.end - segment.start)
            advantages += [batch.advantages[segment.trace_id]] * (segment.end - segment.start)
    logps = logps.clone().requires_grad_()
    served, turns = torch.full_like(logps, -1.0), torch.arange(len(own))
    inputs = LossInputs(logps, served, torch.tensor(advantages), turns, len(own), len(own), proximal_logps_N=began)
    policy_loss(inputs, CONFIG.loss).loss.backward()
    found = defaultdict[str, float](float)
    for owner, slope in zip(own, logps.grad.abs().tolist(), strict=True):
        found[owner] += slope
    return found


@settings(max_examples=40)
@given(SESSIONS, st.integers(0, 2**31))
def test_the_gradient_of_one_user_is_bounded_by_their_share_of_everybodys_bound(
    sessions: list[list[tuple[float, int]]], seed: int
) -> None:
    items = [replace(item(f"s{n}", *turns), owner=f"u{n % 12}") for n, turns in enumerate(sessions)]
    batch = batch_of(items)
    fairness = batch.fairness
    lengths = {s.trace_id: s.end - s.start for held in items for s in held.chains[0].segments}
    num_tokens = sum(lengths.values())
    mass = sum(abs(x) * lengths[name] for name, x in batch.advantages.items())
    own = CONFIG.loss
    steepest = max(1 + own.clip_high, own.max_importance_weight) * own.max_correction
    logps, began = -1.0 + torch.randn((2, num_tokens), generator=torch.Generator().manual_seed(seed))
    for slope in slopes(batch, items, logps, began).values():
        assert slope <= fairness.capped.user_cap * steepest * mass / num_tokens * (1 + 1e-4) + 1e-9
    assert fairness.capped.user_share <= fairness.capped.user_cap * (1 + 1e-9)
    assert all(0.0 < weight <= count <= 1.0 for weight, count in zip(fairness.weights, fairness.counts, strict=True))


def test_a_user_with_long_replies_and_extreme_rewards_has_no_more_than_the_cap() -> None:
    """Thirty users of one turn of ten tokens, and one of a single turn of a thousand: 0.1 of what is left."""
    batch = batch_of([*(item(f"u{n}", (0.4 + 0.2 * (n % 2), 10)) for n in range(30)), item("loud", (1.0, 1000))])
    capped = batch.fairness.capped
    assert capped.user_share == pytest.approx(0.1) and capped.user_share_before > 0.9
    assert batch.fairness.weights[-1] < 0.02 and batch.fairness.weights[:-1] == (1.0,) * 30


def test_a_user_who_corrects_much_teaches_no_more_than_the_cap() -> None:
    """Thirty users of one turn of ten tokens, and one whose turn of a thousand is worth nothing and is corrected."""
    loud = item("loud", (0.5, 1000), (0.5, 10))
    marked = {name: replace(turn, is_corrected=name == "loud-0") for name, turn in loud.turns.items()}
    items = [*(item(f"u{n}", (0.4 + 0.2 * (n % 2), 10)) for n in range(30)), replace(loud, turns=marked)]
    batch = batch_of(items, CONFIG.model_copy(update={"loss": LossConfig(hint_weight=1.0)}))
    assert batch.fairness.capped.user_share == pytest.approx(0.1)
    assert batch.fairness.weights[-2] < 0.02 and batch.fairness.weights[:-2] == (1.0,) * 30
    (hinted,) = [one for minibatch in batch.minibatches for microbatch in minibatch for one in microbatch.hinted]
    assert hinted.weight == batch.fairness.weights[-2]
    assert batch_of(items).fairness.weights[-2] > 0.5, "off"


def test_a_flood_does_not_say_what_is_normal() -> None:
    """Twenty honest users, half of them pleased; one user's three hundred turns of reward 1."""
    honest = [item(f"u{n}", (float(n % 2), 10)) for n in range(20)]
    flooded = batch_of([*honest, item("flood", *[(1.0, 10)] * 300)])
    pleased = [flooded.advantages[f"u{n}-0"] for n in range(20)]
    alone = [batch_of(honest).advantages[f"u{n}-0"] for n in range(20)]
    assert pleased == pytest.approx(alone, abs=0.11)
    moved = KNOWN.after(flooded.columns, 0.0, CONFIG.baselines, flooded.fairness.counts)
    assert {node.key: node.mean for node in moved.nodes}["value", "main", "t"] < 0.56


def test_what_was_asked_n_times_counts_an_nth_and_is_told() -> None:
    template = [
        sketch_of([ChatMessage(role="user", text=f"{PROMPT} Signed: {name}")]) for name in ("Ann", "Bob", "Cleo")
    ]
    others = [sketch_of([ChatMessage(role="user", text=text)]) for text in PROMPTS]
    items = [item(f"u{n}", (n / 10, 5), sketch=sketch) for n, sketch in enumerate([*template, *others])]
    fairness = batch_of(items).fairness
    assert fairness.counts == pytest.approx([1 / 3] * 3 + [1.0] * 4)
    assert fairness.numbers()["fair.near_duplicates"] == 3
    seen = Seen().after(fairness.asked, 100)
    assert batch_of(items, seen=seen).fairness.counts == pytest.approx([1 / 3] * 3 + [1.0] * 4)
    assert batch_of(items[2:], seen=seen).fairness.num_alike == (4, 2, 2, 2, 2)


def test_where_all_were_asked_alike_all_count() -> None:
    sketch = sketch_of([ChatMessage(role="user", text=PROMPT)])
    assert batch_of([item(f"u{n}", (n / 10, 5), sketch=sketch) for n in range(9)]).fairness.counts == (1.0,) * 9


def test_every_turn_still_trains() -> None:
    items = [item("flood", *[(n % 2, 5) for n in range(60)]), *(item(f"u{n}", (n / 10, 5)) for n in range(9))]
    batch = batch_of(items)
    assert len(batch.turns) == 69 and min(batch.fairness.weights) > 0.0
    assert sum(micro.num_trained for mini in batch.minibatches for micro in mini) == 69 * 5
    nonzero = [np.count_nonzero(micro.advantages_N) for mini in batch.minibatches for micro in mini]
    assert sum(nonzero) == 69 * 5


def test_a_session_without_a_user_is_its_own_and_an_agents_is_its_parents(reward_of: RewardOf) -> None:
    reward, parent = reward_of("child", [1.0]), reward_of("s", [1.0])
    assert reward.trajectory is not None
    own = reward.trajectory.model_copy(update={"parent_session_id": "s"})
    assert owner_of(reward, reward.trajectory) == owner_of(reward, None) == "session child"
    assert owner_of(reward, own) == owner_of(parent, parent.trajectory)
    named = reward.model_copy(update={"user": "5f2c"})
    assert owner_of(named, own) == "user 5f2c"


def test_a_turn_brings_the_sketch_of_its_prompt(reward_of: RewardOf) -> None:
    message = ChatMessage(role="user", text=PROMPT)
    reward = reward_of("s", [1.0], turn_changes={0: {"messages": (message,)}})
    (found,) = screen(reward, reward.trajectory).values()
    assert isinstance(found, EligibleTurn) and found.sketch == sketch_of([message])

"""Answers and their rewards, in pairs by the prompt that was asked again. Pure.

A reward belongs here when its trace is one whose answer was received. Both arms scored make a pair: a difference of
rewards where a component scored both turns (silence on both is no evidence that they are alike), and of each guardrail
that both have. They are judged in the order in which prompts are asked, up to the first that is open: were those that
came early judged, what fails slowly would be missing when it is decided.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from infra.config import SCORED, GateConfig, ReplayConfig
from ingest.records.events import Arm, Reward
from serving.rollout.evidence import REWARD, Pairs

ARMS = (Arm.CANDIDATE, Arm.STABLE)


@dataclass
class Book:
    """What was asked and what it was worth. `versions` says which version each arm must have been served by alone.

    `prompts` are those to be asked, in order. One thread asks and writes down answers, another takes rewards.
    """

    versions: dict[Arm, int]
    prompts: tuple[str, ...] = ()
    answers: dict[str, dict[Arm, str]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    rewards: dict[str, Reward] = field(default_factory=dict)

    def note(self, replay_of: str, candidate: str | None, stable: str | None) -> None:
        """Both arms answered: the ids of the answers' traces. None: an engine does not take it, and it is left out."""
        if candidate is None or stable is None:
            self.left_out.add(replay_of)
        else:
            self.answers[replay_of] = {Arm.CANDIDATE: candidate, Arm.STABLE: stable}

    def take(self, reward: Reward) -> None:
        """A reward of any replay; the newest revision counts."""
        given = reward.assignment
        if given is None or given.replay_of is None or self.versions.get(given.arm) is None:
            return
        if reward.versions != (self.versions[given.arm],):
            return
        name = reward.trace_ids[0]
        before = self.rewards.get(name)
        if before is None or before.revision < reward.revision:
            self.rewards[name] = reward

    def pairs(self, is_over: bool = False) -> dict[str, tuple[Reward, Reward]]:
        """Prompt -> candidate's and stable's reward, of those before the first that lacks one; of all, when it is
        over."""
        found = {}
        for prompt in self.prompts:
            answers = self.answers.get(prompt, {})
            candidate, stable = (self.rewards.get(answers.get(arm, "")) for arm in ARMS)
            if candidate is not None and stable is not None:
                found[prompt] = (candidate, stable)
            elif prompt not in self.left_out and not is_over:
                break
        return found

    @property
    def num_lacking(self) -> int:
        """Answers of both arms that lack a reward."""
        given = tuple(self.answers.values())  # the other thread adds to them
        return sum(not all(answers[arm] in self.rewards for arm in ARMS) for answers in given)


def outcomes(pairs: dict[str, tuple[Reward, Reward]], gate: GateConfig, config: ReplayConfig) -> dict[str, Pairs]:
    """The paired differences of the reward and of the guardrails that are required or reported, each in [-1, 1]."""
    rails = [rail for rail in gate.guardrails if rail.name not in (SCORED, *config.left_out)]
    found = {REWARD: Pairs(config.margin)}
    found |= {rail.name: Pairs(config.margin) for rail in rails if rail.required}
    for replay_of, (candidate, stable) in pairs.items():
        revision = candidate.revision + stable.revision
        if candidate.has_signal and stable.has_signal:
            found[REWARD].add(replay_of, revision, candidate.value - stable.value)
        for rail in rails:
            values = [one.guardrails.get(rail.name) for one in (candidate, stable)]
            if all(value is not None and 0.0 <= value <= 1.0 for value in values):
                held = found.setdefault(rail.name, Pairs(config.margin))
                held.add(replay_of, revision, (values[0] or 0.0) - (values[1] or 0.0))
    return found


def unscored(pairs: Iterable[tuple[Reward, Reward]]) -> str:
    """Why rewards have no signal: what components said, most often first."""
    counts: dict[str, int] = {}
    for both in pairs:
        for reward in both:
            for part in reward.components if not reward.has_signal else ():
                told = f"{part.name}: {part.unscored}"
                counts[told] = counts.get(told, 0) + 1
    return ", ".join(sorted(counts, key=lambda told: (-counts[told], told))[:3])


def least_pairs(num_outcomes: int, config: ReplayConfig) -> int:
    """The fewest prompts that can show harm: all of them lost whole."""
    line = math.log(max(1, num_outcomes) / config.alpha)
    lost = Pairs(config.margin)
    while lost.log_harm < line:
        lost.add(len(lost), 0, -1.0)
    return len(lost)

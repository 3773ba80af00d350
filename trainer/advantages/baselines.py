"""The reward to expect of a turn, by what is known of turns like it. Pure.

A key is a path, from what all have in common to what few do:

    part of the reward > kind of turn > tenant > task > tools

Each node of a path, from (part,) to the whole key, holds the mean reward m of the turns below it and how many turns
that mean is worth, n. A node's baseline is its own mean shrunk to its parent's baseline by k pseudo-turns,

    b(node) = (n m + k b(parent)) / (n + k),        b(part) = m, or the batch's mean where the part is new,

the posterior mean of a normal mean with k = variance within / variance between (James and Stein 1961; Gelman and Hill
2007, eq. 12.1). So a key that was seen once, or never, expects what its tenant's turns of that kind earn.

It is used before it is updated (SPO, arXiv 2509.13232, section 3.2): a turn is no part of its own baseline. Each turn
then has SPO's update, alpha' = rho alpha + r and beta' = rho beta + 1 - r with alpha = n m and beta = n (1 - m), where

    rho = 2^(-D / half-life) in [min_kept, max_kept]

and D is how far the policy moved since the node was last updated; its half-life is 0.06 and its bounds are 0.875 and
0.96, memories of 8 and of 25 turns. A batch's turns were met by the same policy, so D is 0 and rho is max_kept, h, from
the second on. With c the counts of those below a node and r their mean reward, which each of them is taken to be, so
that their order does not matter, that is

    n' = rho h^(c - 1) n + a,    m' = (rho h^(c - 1) n m + a r) / n',    a = (1 - h^c) / (1 - h) = 1 + h + h^2 + ...

D adds up what each update says of its distance from what served its turns: that stands for how far the policy moved. It
is none for an update of one step whose turns its own weights served, and counts twice what two updates were both away.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from infra.config import BaselineConfig

Key = tuple[str, ...]
"""A path, from the reward's part on; no part's name is another's key."""
COUNT_BEFORE = 8.0
"""What a baseline is worth whose checkpoint did not say: SPO's N_init = 1 / (1 - rho_min)."""
_PARTS_OF_A_KEY_BEFORE = 3


@dataclass(frozen=True)
class Column:
    """One part of the reward over a batch: entry j is the part of the batch's turn number `turns[j]`.

    `keys[j]` is what it is expected by, which begins with `part`, `weights[j]` >= 0 and `rewards[j]` its value.
    """

    part: str
    turns: tuple[int, ...]
    keys: tuple[Key, ...]
    weights: tuple[float, ...]
    rewards: tuple[float, ...]

    def counts(self, of_turns: Sequence[float] | None) -> list[float]:
        """How much each entry counts, of how much each of the batch's turns does."""
        return [1.0 if of_turns is None else of_turns[turn] for turn in self.turns]


class Node(NamedTuple):
    """What is known of the turns below `key`: their mean reward, worth `turns` turns, `moved` nats ago."""

    key: Key
    mean: float
    turns: float
    moved: float = 0.0

    def after(self, count: float, mean: float, own: BaselineConfig) -> "Node":
        """With turns of a batch that count this much, together."""
        moved = min(max(own.min_kept, self._faded(own)), own.max_kept)
        kept = self.turns * moved * own.max_kept ** (count - 1.0)
        added = (1.0 - own.max_kept**count) / (1.0 - own.max_kept)
        return Node(self.key, (kept * self.mean + added * mean) / (kept + added), kept + added)

    def worth(self, own: BaselineConfig) -> float:
        """How much it counts by now, without bounds."""
        return self.turns * self._faded(own)

    def _faded(self, own: BaselineConfig) -> float:
        return float(2.0 ** (-self.moved / own.half_life_nats))


class Baselines(BaseModel):
    """Every node that is known, in order of keys. Immutable: `after` gives the next one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[Node, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_checkpoint(cls, given: Any) -> Any:
        """Before there were nodes, a checkpoint held `kind:part:tenant` -> mean; before that, kinds alone."""
        if not isinstance(given, Mapping) or not all(isinstance(mean, float | int) for mean in given.values()):
            return given
        paths = {tuple(name.split(":", 2)): float(mean) for name, mean in given.items()}
        known = {path: mean for path, mean in paths.items() if len(path) == _PARTS_OF_A_KEY_BEFORE}
        return {"nodes": sorted(Node((path[1], path[0], path[2]), mean, COUNT_BEFORE) for path, mean in known.items())}

    @cached_property
    def _known(self) -> dict[Key, Node]:
        return {node.key: node for node in self.nodes}

    def before(self, column: Column, own: BaselineConfig, counts: Sequence[float] | None = None) -> dict[Key, float]:
        """The baseline of every key in a batch's column, from what was known before it.

        `counts` is how much each of the batch's turns counts: it weighs the mean of a part that is new.
        """
        first = fmean(column.rewards, column.counts(counts))
        return {key: self._expected(key, first, own.pseudo_turns) for key in dict.fromkeys(column.keys)}

    def _expected(self, key: Key, first: float, pseudo: float) -> float:
        top = self._known.get(key[:1])
        value = top.mean if top else first
        for depth in range(2, len(key) + 1):
            if node := self._known.get(key[:depth]):
                value = (node.turns * node.mean + pseudo * value) / (node.turns + pseudo)
        return value

    def after(
        self, columns: Iterable[Column], moved: float, own: BaselineConfig, counts: Sequence[float] | None = None
    ) -> "Baselines":
        """The baselines once a batch has been used, in an update that moved the policy by `moved` nats a token."""
        known = dict(self._known)
        for column in columns:
            for key, (count, mean) in _below(column, counts).items():
                known[key] = known.get(key, Node(key, mean, 0.0)).after(count, mean, own)
        most = sorted(known.values(), key=lambda node: (-node.worth(own), len(node.key), node.key))[: own.max_keys]
        return Baselines(nodes=tuple(sorted(node._replace(moved=node.moved + moved) for node in most)))


def _below(column: Column, counts: Sequence[float] | None) -> dict[Key, tuple[float, float]]:
    """Each node's turns in a batch's column: how much they count together, and their mean reward."""
    entries: dict[Key, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for key, reward, count in zip(column.keys, column.rewards, column.counts(counts), strict=True):
        for depth in range(1, len(key) + 1):
            rewards, weights = entries[key[:depth]]
            rewards.append(reward)
            weights.append(count)
    return {key: (sum(weights), fmean(rewards, weights)) for key, (rewards, weights) in entries.items()}

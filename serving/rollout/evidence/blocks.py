"""A trial or a watch whose arms take turns on the same engines: its units are blocks, not sessions.

One coin decides the arm of all sessions that begin in a block. What moves a block, a time of day or an outage, moves
them together, and sessions taken one by one would count it once for each: bets on them are no e-process. So a block is
the unit. Its outcome is the mean over its sessions, in [0, 1]; with its coin's chance pi it has the factor of
`serving.rollout.evidence.bets`, and the same theorems hold, for

    effect of block k = E[mean outcome of its sessions | every engine serves the candidate] - E[... | stable]

which drift between blocks cannot touch: the coin is tossed before anybody begins in it. Which sessions are in the mean
is settled before too, or is no arm's doing:

    caps      count sessions in the order they began, as ever, and before it is known how they went
    whole     a session counts if its block's version alone served it and its last reply was whole before the block
              ended; else its other half is the other arm's, or would have been. Not whether the next block's arm is
              the same: its coin falls to stable more often, where the share is small, and stable would keep more
    settled   a block is evidence once a session began `settle_s` after its end; what is scored later replaces its mean

To be whole is an outcome itself. A candidate whose replies grow longer fits fewer sessions into its blocks, those that
are left are its short ones, and no mean over them would tell. Therefore `whole`, 1 for a session that was and 0 for one
that was not, is a guardrail with its own margin over all sessions that count: no promotion without evidence for it.
While the chance to be whole is the same in both arms, what is left out of a mean is no arm's choice.

A block that nobody began in multiplies the evidence by 1, and so does one with none that is whole, but in `whole`.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from infra.config import WHOLE, GateConfig, GuardrailConfig
from ingest.records.events import Arm
from serving.rollout.evidence import bets
from serving.rollout.evidence.bets import Baseline
from serving.rollout.evidence.caps import Begun
from serving.rollout.evidence.tally import REWARD, Moments, Sessions, Totals, value_of
from serving.rollout.evidence.units import Unit
from serving.rollout.placement.blocks import Block

_MANY_BLOCKS = 8  # from here on their means tell how much means differ


class Mean(NamedTuple):
    """A block's outcomes. `whole` of its sessions that count, `num`, are in the means; a mean is none where one of them
    has no such outcome."""

    arm: Arm
    pi: float
    num: int
    whole: int
    outcomes: Mapping[str, float | None]


def is_whole(unit: Unit, block: Block) -> bool:
    """Whether a session that began in the block is whole within it."""
    return (unit.arm, unit.version) == (block.arm, block.version) and unit.ended_at <= block.closed_at


def mean_of(units: Iterable[Unit], block: Block, pi: float, config: GateConfig) -> Mean | None:
    """Of the sessions that count; `None` without any."""
    counting = tuple(units)
    if not counting:
        return None
    whole = [unit for unit in counting if is_whole(unit, block)]
    outcomes: dict[str, float | None] = {WHOLE: len(whole) / len(counting)}
    if whole:
        outcomes[REWARD] = math.fsum(value_of(unit, config) for unit in whole) / len(whole)
        for rail in config.guardrails:
            if rail.name != WHOLE:
                outcomes[rail.name] = _mean([unit.guardrails.get(rail.name, rail.missing) for unit in whole])
    return Mean(block.arm, pi, len(counting), len(whole), outcomes)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def with_whole(config: GateConfig, margin: float) -> GateConfig:
    """The gate of a trial in blocks."""
    whole = GuardrailConfig(name=WHOLE, margin=margin)
    return config.model_copy(update={"guardrails": (*config.guardrails, whole)})


def rehearsed(units: Iterable[Unit], block_s: float, config: GateConfig) -> dict[str, Baseline]:
    """The champion's baselines for blocks, frozen before the trial: of its sessions, as if blocks of this length had
    gone by then. Of few blocks the variance is a session's, which is more: bets are smaller then, and as valid."""
    by_number = defaultdict[int, list[Unit]](list)
    for unit in units:
        by_number[int(unit.began_at // block_s)].append(unit)
    found, single = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for number, begun in by_number.items():
        begin, end = number * block_s, (number + 1) * block_s
        for together, into in (([begun], found), ([[unit] for unit in begun], single)):
            for some in together:
                version = some[0].version
                block = Block(number, some[0].arm, -1 if version is None else version, Arm.CANDIDATE, 0.5, begin, end)
                mean = mean_of(some, block, 0.5, config)
                assert mean is not None
                for name, value in mean.outcomes.items():
                    if value is not None:
                        into[name].append(value)
    return {name: Baseline.of(found[name] if len(found[name]) >= _MANY_BLOCKS else single[name]) for name in found}


class BlockTally(Totals):
    """As `Tally`, over blocks. A look costs what changed: blocks that ended, and those of sessions that came, were
    scored anew, or count now, or no more."""

    noun = "blocks"

    def __init__(
        self, sessions: Sessions, baselines: Mapping[str, Baseline], config: GateConfig, treated: Arm, control: Arm
    ) -> None:
        """`config` has `whole` among its guardrails (`with_whole`)."""
        super().__init__(baselines, config, treated, control)
        self._beside = treated if treated is Arm.CANDIDATE else control
        self._sessions = sessions
        self._num_read = 0
        self._known: dict[int, Block | None] = {}  # by number; `None`: of the other stage
        self._ended: set[int] = set()
        self._unripe: deque[int] = deque()
        self._settled: set[int] = set()
        self._num_settled = 0  # of those that have sessions
        self._means: dict[int, Mean] = {}
        self._counted: set[str] = set()
        self._members = defaultdict[int, set[str]](set)
        self._num = Counter[bool]()  # sessions of blocks that ended, by whether they were whole
        self._after = defaultdict[tuple[Arm, bool], Moments](Moments)  # rewards by arm, and whether it is a switch
        self._changed: dict[str, Unit | None] = dict.fromkeys(sessions.units)

    @property
    def num_excluded(self) -> int:
        """Sessions that count and are not whole within their block, of blocks that ended."""
        return self._num[False]

    @property
    def num_settled(self) -> int:
        """Blocks that E is of."""
        return self._num_settled

    def changed(self, session_id: str, before: Unit | None) -> None:
        """A session came, or was replaced."""
        self._changed.setdefault(session_id, before)

    def look(self, blocks: Sequence[Block]) -> "BlockTally":
        """Itself, once all that changed is in its sums. `blocks` are those of the candidate, in their order, of which
        the last may go on; more at each look."""
        ended = self._read(blocks)
        for number in (self._regrouped() | ended) & self._ended:
            self._recount(number)
        until = self._sessions.newest_at - self.config.settle_s
        while self._unripe and self._block(self._unripe[0]).closed_at <= until:
            number = self._unripe.popleft()
            self._settled.add(number)
            if number in self._means:
                self._settle(self._means[number], 1)
        return self

    def _block(self, number: int) -> Block:
        block = self._known[number]
        assert block is not None
        return block

    def _read(self, blocks: Sequence[Block]) -> set[int]:
        """Take in those that are new; the numbers of those that ended."""
        ended = set()
        for block in blocks[self._num_read :]:
            is_mine = block.beside is self._beside
            self._known[block.number] = block if is_mine else None
            if block.closed_at < math.inf:
                self._num_read += 1
                if is_mine:
                    ended.add(block.number)
                    self._unripe.append(block.number)
        self._ended |= ended
        return ended

    def _regrouped(self) -> set[int]:
        """Blocks that have other sessions, or other outcomes, than before. What began in a block that nothing is known
        of yet waits."""
        changed, self._changed = self._changed, {}
        came, gone, touched = set[Begun](), set[Begun](), set[int]()
        for name, before in changed.items():
            now = self._sessions.units[name]
            if now.block not in self._known:
                self._changed[name] = before
                continue
            for unit, put, begun in ((before, set[str].discard, gone), (now, set[str].add, came)):
                if unit is not None and unit.block is not None and self._known.get(unit.block) is not None:
                    put(self._members[unit.block], name)
                    begun.add(unit.begun)
                    touched.add(unit.block)
        entered, left = self.beginnings.settle(came - gone, gone - came)
        self._counted |= entered
        self._counted -= left
        others = (self._sessions.units[name].block for name in entered | left)
        return touched | {number for number in others if number is not None}

    def _recount(self, number: int) -> None:
        block, before = self._block(number), self._means.pop(number, None)
        pi = block.share if self.treated is self._beside else 1.0 - block.share
        names = self._members[number] & self._counted
        now = mean_of((self._sessions.units[name] for name in names), block, pi, self.config)
        for mean, num in ((before, -1), (now, 1)):
            if mean is not None:
                self._count(mean, num)
                self._carry(mean, block, num)
                if number in self._settled:
                    self._settle(mean, num)
        if now is not None:
            self._means[number] = now

    def _count(self, mean: Mean, num: int) -> None:
        """Let a block count, with `num` 1, or no more, with -1."""
        for name, outcome in self._outcomes(mean):
            if outcome is None:
                self.lacking[name] += num
            else:
                self.measured[name].count(mean.arm is self.treated, mean.pi, outcome, num)
        self.num[mean.arm] += num
        self.pis[mean.pi] += num
        self._num[True] += num * mean.whole
        self._num[False] += num * (mean.num - mean.whole)

    def _carry(self, mean: Mean, block: Block, num: int) -> None:
        reward = mean.outcomes.get(REWARD)
        if block.before is not None and reward is not None:
            self._after[mean.arm, block.before is not mean.arm].put(reward, num)

    def _settle(self, mean: Mean, num: int) -> None:
        is_treated = mean.arm is self.treated
        self._num_settled += num
        (self.mismatch.put if num > 0 else self.mismatch.take)(bets.mismatch(is_treated, mean.pi))
        for name, outcome in self._outcomes(mean):
            if outcome is not None:
                self.measured[name].settle(is_treated, mean.pi, outcome, num)

    def _outcomes(self, mean: Mean) -> Iterator[tuple[str, float | None]]:
        return ((name, mean.outcomes[name]) for name in self.measured if name in mean.outcomes)

    @property
    def more(self) -> dict[str, float]:
        """Sessions in the blocks so far, and what an arm carries over into the block after it.

        `carry_over.<arm>` is the mean reward of the arm's blocks that follow one of the other arm, less that of those
        that follow one of its own, and `.error` its standard error. Which of them a block follows was a coin's doing,
        so that nothing else differs; early sessions of a block against later ones would differ in their length too,
        since a late one is whole only if it is short.
        """
        numbers = {"sessions": float(self._num.total())}
        for arm in (self.treated, self.control):
            switched, stayed = self._after[arm, True], self._after[arm, False]
            if min(switched.num, stayed.num) > 1:
                numbers[f"carry_over.{arm}"] = switched.mean - stayed.mean
                numbers[f"carry_over.{arm}.error"] = math.sqrt(switched.variance_of_mean + stayed.variance_of_mean)
        return numbers

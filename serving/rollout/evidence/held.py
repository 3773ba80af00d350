"""Outcomes of sessions, as the gate needs them: of the champion, of each trial, and of the watch after it.

Each session counts once. A later revision of its reward (feedback that came late) replaces what it revises.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import median

from infra.config import GateConfig
from ingest.records.events import Arm, Assignment, Reward
from serving.rollout.evidence.bets import Baseline
from serving.rollout.evidence.blocks import BlockTally, rehearsed
from serving.rollout.evidence.tally import REWARD, Sessions, Tally, value_of
from serving.rollout.evidence.units import Unit
from serving.rollout.placement.blocks import Block

_CHAMPION_UNITS = 500


class Evidence:
    """Units by version: of each that served as champion the last ones, oldest first; of each trial; of each watch; of
    both together, where arms take turns: which block was of which, the release log knows.

    `positions` is partition -> offset of the next reward to take.
    """

    def __init__(self) -> None:
        self.champion: dict[int, dict[str, Unit]] = {}
        self.trials: dict[int, Sessions] = {}
        self.watches: dict[int, Sessions] = {}
        self.blocks: dict[int, Sessions] = {}
        self.positions: dict[int, int] = {}

    def add(self, reward: Reward) -> None:
        """File a reward under the trial or the watch its session was assigned in, and under the version that served it
        alone. A prompt asked again is nobody's session."""
        served, assignment = set(reward.versions), reward.assignment
        if assignment is None or assignment.replay_of is not None:
            return
        if assignment.arm is Arm.STABLE and len(served) == 1:
            _put_champion(self.champion.setdefault(reward.versions[0], {}), Unit.of(reward))
        if assignment.trial is None:
            return
        if assignment.block is not None:
            self.blocks.setdefault(assignment.trial, Sessions()).put(Unit.of(reward))
            return
        of, is_pure = self._where(assignment, served)
        has_coin = 0.0 < assignment.propensity < 1.0
        of.setdefault(assignment.trial, Sessions()).put(Unit.of(reward, is_pure and has_coin))

    def _where(self, assignment: Assignment, served: set[int]) -> tuple[dict[int, Sessions], bool]:
        """The trials or the watches, and whether the session's arm alone served it.

        A version has its trial first and its watch after: sessions of the stable arm that it served alone are of its
        watch, those that it did not serve of its trial.
        """
        is_here, is_alone = assignment.trial in served, served <= {assignment.trial}
        match assignment.arm:
            case Arm.CANDIDATE:
                return self.trials, is_alone
            case Arm.HOLDBACK:
                return self.watches, not is_here
            case Arm.STABLE if is_here and is_alone:
                return self.watches, True
            case _:
                return self.trials, not is_here

    def units_of(self, trial: int) -> tuple[Unit, ...]:
        """A trial's sessions that their arm alone served, in the order in which they were first scored."""
        held = self.trials.get(trial)
        return () if held is None else tuple(unit for unit in held.units.values() if unit.is_pure)

    def trial(self, version: int, baselines: Mapping[str, Baseline], config: GateConfig) -> Tally:
        """The sums over a trial, for `judge`."""
        held = self.trials.setdefault(version, Sessions())
        return held.tally(baselines, config, treated=Arm.CANDIDATE, control=Arm.STABLE)

    def watch(self, version: int, baselines: Mapping[str, Baseline], config: GateConfig, since: float = 0.0) -> Tally:
        """The sums over the watch of a version that was promoted at `since`, in Unix time, for `watch`: it is the
        treated one, beside the holdback. Sessions that began before that had another coin."""
        held = self.watches.setdefault(version, Sessions())
        return held.tally(baselines, config, treated=Arm.STABLE, control=Arm.HOLDBACK, since=since)

    def in_blocks(
        self,
        version: int,
        baselines: Mapping[str, Baseline],
        config: GateConfig,
        blocks: Sequence[Block],
        treated: Arm = Arm.CANDIDATE,
        control: Arm = Arm.STABLE,
    ) -> BlockTally:
        """The sums over the blocks of a trial, for `judge`; of a watch, for `watch`, with stable treated and the
        holdback beside it. `config` and `baselines` have the guardrail `whole`."""
        held = self.blocks.setdefault(version, Sessions())
        tally = next((one for one in held.followers if isinstance(one, BlockTally) and one.treated is treated), None)
        if tally is None or not tally.is_for(baselines, config):
            held.followers = [one for one in held.followers if one is not tally]
            tally = BlockTally(held, baselines, config, treated, control)
            held.followers.append(tally)
        return tally.look(blocks)

    def session_s(self, version: int) -> float | None:
        """How long the champion's sessions last in the median, from the first request to the end of the last reply."""
        lengths = [unit.ended_at - unit.began_at for unit in self.champion.get(version, {}).values()]
        return median(lengths) if lengths else None

    def rehearsed(self, version: int, config: GateConfig, block_s: float) -> dict[str, Baseline] | None:
        """`baselines` for a trial in blocks of this length, with those of `whole`."""
        found = self.baselines(version, config)
        if found is None:
            return None
        return found | rehearsed(self.champion[version].values(), block_s, config)

    def baselines(self, version: int, config: GateConfig) -> dict[str, Baseline] | None:
        """The champion's outcomes, or `None` while there are too few.

        A guardrail that is judged only where it is reported has one when `min_champion_units` sessions reported it.
        """
        served = self.champion.get(version, {}).values()
        if len(served) < config.min_champion_units:
            return None
        found = {REWARD: Baseline.of(value_of(unit, config) for unit in served)}
        for rail in config.guardrails:
            reported = [unit.guardrails[rail.name] for unit in served if rail.name in unit.names]
            declared = [] if rail.missing is None else [rail.missing] * (len(served) - len(reported))
            if len(reported) >= (1 if rail.required else config.min_champion_units):
                found[rail.name] = Baseline.of(reported + declared)
        return found

    def forget_all_but(self, versions: Collection[int], trials: Collection[int]) -> None:
        """Let go of champions, and of trials and watches, that no decision will ask for."""
        for version in self.champion.keys() - set(versions):
            del self.champion[version]
        for held in (self.trials, self.watches, self.blocks):
            for trial in held.keys() - set(trials):
                del held[trial]


def _put_champion(held: dict[str, Unit], unit: Unit) -> None:
    before = held.get(unit.session_id)
    if before is None or unit.replaces(before):
        held[unit.session_id] = unit
    if len(held) > _CHAMPION_UNITS:
        del held[next(iter(held))]

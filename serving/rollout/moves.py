"""The steps of a trial, as releases. Whether one is taken is decided elsewhere; here is what the log then says."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra import telemetry
from infra.config import Placement, RolloutConfig
from infra.telemetry import metrics, names
from ingest.records.events import Mode, ReleaseKind, TrialState, Version
from serving.rollout import trial
from serving.rollout.evidence import Baseline
from serving.rollout.fleet import Fleet
from serving.rollout.placement import candidates, place
from serving.rollout.placement.switchback import Step
from serving.rollout.writing import Writer


@dataclass(frozen=True)
class By:
    """Who asked for a step, and why. Without one the controller decided."""

    author: str
    reason: str


BLOCK_S = "block_s"
"""The length of a trial's blocks, among the numbers of the release that begins its canary, or its watch."""


def freeze(baselines: Mapping[str, Baseline]) -> dict[str, float]:
    """Baselines as a release's numbers."""
    return {
        f"champion.{name}.{part}": getattr(baseline, part)
        for name, baseline in baselines.items()
        for part in ("mean", "variance")
    }


def thaw(numbers: Mapping[str, float]) -> dict[str, Baseline]:
    """Baselines from a release's numbers."""
    held = (key.removeprefix("champion.") for key in numbers if key.startswith("champion."))
    names = {key.rpartition(".")[0] for key in held}
    return {name: Baseline(numbers[f"champion.{name}.mean"], numbers[f"champion.{name}.variance"]) for name in names}


class Moves:
    """Writes them. `numbers` are what a decision was made on, `reason` is its sentence."""

    def __init__(self, writer: Writer, fleet: Fleet, config: RolloutConfig) -> None:
        self._writer, self._fleet, self._config = writer, fleet, config

    def placement(self, stable: int, on_candidates: int | None = None) -> dict[str, int]:
        """Engine -> version."""
        slots = (engine.slot for engine in self._fleet.engines.values())
        return place(slots, stable, self._config, on_candidates=on_candidates)

    @property
    def candidates(self) -> frozenset[str]:
        """The engines that serve a candidate while it is checked."""
        engines = self._fleet.engines
        mine = candidates((engine.slot for engine in engines.values()), self._config)
        return frozenset(name for name, engine in engines.items() if engine.slot.id in mine)

    @property
    def _takes_turns(self) -> bool:
        return self._config.placement is Placement.SWITCHBACK

    # -- a trial

    def pass_over(self, version: Version) -> None:
        """published -> expired: it descends from what is not stable any more."""
        told = f"version {version.version} descends from {version.parent}, but {self._writer.stable} is stable"
        engines = dict(self._writer.served.engines)
        self._move(TrialState.PUBLISHED, TrialState.EXPIRED, told, candidate=version.version, engines=engines)

    def begin(self, version: int) -> None:
        """published -> evaluating."""
        told = f"version {version} takes the candidate engines"
        engines = self.placement(self._writer.stable, version)
        self._move(TrialState.PUBLISHED, TrialState.EVALUATING, told, candidate=version, engines=engines)

    def check(self, state: TrialState, reason: str, numbers: Mapping[str, float]) -> None:
        """On to a state in which a check decides."""
        self._go_on(state, reason, numbers=dict(numbers))

    def to_canary(
        self, share: float, salt: str, baselines: Mapping[str, Baseline], reason: str, block_s: float | None = None
    ) -> None:
        """On to users. `baselines` are frozen with this release, and how long blocks are, where arms take turns."""
        engines = self.placement(self._writer.stable) if self._takes_turns else dict(self._writer.served.engines)
        numbers = freeze(baselines) | ({} if block_s is None else {BLOCK_S: block_s})
        self._go_on(TrialState.CANARY, reason, engines=engines, share=share, salt=salt, numbers=numbers)

    def ramp(self, share: float, engines: Mapping[str, int], reason: str, numbers: Mapping[str, float]) -> None:
        """canary -> canary: another share, or other engines."""
        salt = self._writer.served.salt
        self._go_on(TrialState.CANARY, reason, engines=dict(engines), share=share, salt=salt, numbers=dict(numbers))

    def take_turns(self, step: Step, share: float, numbers: Mapping[str, float]) -> None:
        """A block begins, or engines swap for the next. `numbers` are told where the share changes: blocks are many."""
        served = self._writer.served
        version = next(iter(step.engines.values()))
        told = f"engines swap to version {version}" if step.block is None else f"block {step.block}: version {version}"
        if share != served.share:
            told += f"; from here on {share:.0%} of blocks"
        what: dict[str, object] = {"engines": step.engines, "block": step.block, "share": share, "salt": served.salt}
        what |= {"candidate": served.candidate, "state": served.state, "holdback": served.holdback}
        self._writer.write(ReleaseKind.BLOCK, told, numbers=dict(numbers) if share != served.share else {}, **what)

    def end(
        self,
        then: TrialState,
        reason: str,
        numbers: Mapping[str, float],
        by: By | None = None,
        mode: Mode | None = None,
    ) -> None:
        """To rejected or expired, and to `mode` where one is given; the candidate engines return to stable."""
        engines, mode = self.placement(self._writer.stable), mode or self._writer.served.mode
        self._go_on(then, reason, by, engines=engines, numbers=dict(numbers), mode=mode)

    def promote(
        self, reason: str, numbers: Mapping[str, float], baselines: Mapping[str, Baseline], by: By | None = None
    ) -> None:
        """canary -> promoted, under watch where that is configured: then `baselines` are its own."""
        candidate, before, share = self._candidate, self._writer.stable, self._config.watch.share
        what: dict[str, object] = {"engines": self.placement(candidate)}
        if share:
            engines = self.placement(candidate, None if self._takes_turns else before)
            # a salt of its own: the coin of the watch owes nothing to that of the trial
            what = {"engines": engines, "holdback": before, "share": share, "salt": f"watch {self._writer.served.salt}"}
        begun = self._writer.begun
        length = {BLOCK_S: begun.numbers[BLOCK_S]} if begun is not None and BLOCK_S in begun.numbers else {}
        told = f"version {candidate} is promoted: {reason}"
        self._go_on(
            TrialState.PROMOTED, told, by, stable=candidate, numbers={**numbers, **freeze(baselines), **length}, **what
        )

    # -- afterwards

    def end_watch(self, reason: str, numbers: Mapping[str, float]) -> None:
        """promoted -> promoted: nobody is held back any more."""
        self._go_on(TrialState.PROMOTED, reason, engines=self.placement(self._writer.stable), numbers=dict(numbers))

    def place_watch(self, reason: str) -> None:
        """promoted -> promoted, with other engines."""
        served = self._writer.served
        what: dict[str, object] = {"holdback": served.holdback, "share": served.share, "salt": served.salt}
        what["engines"] = self.placement(self._writer.stable, served.holdback)
        self._go_on(TrialState.PROMOTED, reason, None, **what)

    def roll_back(self, to: int, reason: str, numbers: Mapping[str, float], by: By | None = None) -> None:
        """Stable is an older version again: that which it was after `to` is rolled back."""
        bad = self._writer.stable
        now = self._writer.served.trials.get(bad, TrialState.PROMOTED)
        what: dict[str, object] = {"candidate": bad, "stable": to, "engines": self.placement(to)}
        self._move(now, TrialState.ROLLED_BACK, reason, by, numbers=dict(numbers), **what)

    def turn(self, mode: Mode, told: str, by: By, *, ends_watch: bool = False) -> None:
        """Another mode; all else is as it was, but that a watch can end with it. Where arms take turns on users'
        engines, frozen means that stable serves everyone: what went on may have been the other arm's."""
        served = self._writer.served
        what: dict[str, object] = {
            "candidate": served.candidate,
            "state": served.state,
            "engines": dict(served.engines),
        }
        if ends_watch:
            what |= {"engines": self.placement(self._writer.stable)}
        else:
            what |= {"share": served.share, "salt": served.salt, "holdback": served.holdback, "block": served.block}
        is_among_users = served.state in (TrialState.CANARY, TrialState.PROMOTED) or self._config.switchback.live_only
        if self._takes_turns and is_among_users and mode is Mode.FROZEN:
            what |= {"engines": self.placement(self._writer.stable), "block": None}
        self._writer.write(ReleaseKind.OPERATOR, f"{told}: {by.reason}", author=by.author, mode=mode, **what)

    def settle(self, engines: Mapping[str, int], reason: str) -> None:
        """Other engines, while nothing is on trial or under watch."""
        self._writer.write(ReleaseKind.BOOTSTRAP, reason, engines=dict(engines))

    # -- writing

    @property
    def _candidate(self) -> int:
        assert self._writer.served.candidate is not None
        return self._writer.served.candidate

    def _go_on(self, then: TrialState, reason: str, by: By | None = None, **what: object) -> None:
        """A step of what is on trial or under watch, on the engines that there are unless `what` names others."""
        served = self._writer.served
        assert served.state is not None
        self._move(
            served.state, then, reason, by, **{"candidate": served.candidate, "engines": dict(served.engines), **what}
        )

    def _move(self, now: TrialState, then: TrialState, reason: str, by: By | None = None, **what: object) -> None:
        kind = ReleaseKind.TRIAL if by is None else ReleaseKind.OPERATOR
        if by is not None:
            reason, what["author"] = f"{reason}: {by.reason}", by.author
        self._writer.write(kind, reason, state=trial.step(now, then), **what)
        if now is not then:
            telemetry.count(metrics.RELEASES, 1, {names.STATE: then.value})

"""Engines, router, capture, and the rollout with its gate."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from infra.config.base import AnyShare, Host, Port, Rate, Seconds, Section, Share
from infra.config.checks import ReplayConfig, SuitesConfig

KeyDigest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Tenant = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]


class EngineSlot(Section):
    """One engine process and the arm it belongs to while a trial runs.

    `host` is what the others call it by: on a cluster the name of its pod, and many have the same ports.
    """

    id: str
    arm: Literal["stable", "candidate"]
    host: str = "127.0.0.1"
    port: Port
    control_port: Port
    scoring_port: Port | None = Field(None, description="where scorers ask for likelihoods; none: not here")
    cpus: str | None = Field(None, description="cores for vLLM's threads, as VLLM_CPU_OMP_THREADS_BIND takes them")

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(port for port in (self.port, self.control_port, self.scoring_port) if port)


class EngineConfig(Section):
    """What every vLLM engine is started with."""

    max_model_len: int = Field(1024, ge=16)
    dtype: str = "bfloat16"
    kv_cache_gib: int = Field(1, ge=1)
    max_num_seqs: int = Field(32, ge=1)
    drain_s: int = Field(10, ge=0, description="how long replies in progress may go on after SIGTERM")
    listen: str = Field("", description="the address that each engine binds; empty: its `host`. In a pod: 0.0.0.0")
    extra_args: tuple[str, ...] = Field((), description="more vLLM flags, as its command line takes them")


class RouterConfig(Host):
    """The front door."""

    port: Port = 8000
    api_keys: Mapping[KeyDigest, Tenant] = Field(
        {}, description="SHA-256 of an API key, in hex -> tenant; empty: no key asked, tenant `default`"
    )
    capture_by_default: bool = Field(True, description="capture requests that say nothing of consent")
    connect_timeout_s: Seconds = 2.0
    retry_for_s: Seconds = Field(20.0, description="how long a request waits for an engine before its first byte")
    drain_s: int = Field(10, ge=0, description="how long replies in progress may go on after SIGTERM")


class CaptureConfig(Section):
    """The disk spool between serving and the log."""

    spool_dir: str = Field("", description="empty: `<run_dir>/spool`")
    max_spool_bytes: int = Field(1 << 30, ge=1 << 20)
    segment_bytes: int = Field(4 << 20, ge=1 << 12)
    recent_bytes: int = Field(64 << 20, ge=0, description="memory for recent turns, so that the next is stored cut")


class RampStep(Section):
    """A candidate's traffic share, and after how many units in the trial it ends."""

    share: Share
    until_units: int | None = Field(None, ge=1, description="units counted in the whole trial; none: to its end")


SCORED = "scored"
"""A guardrail that every session has, of no spec's making: 1 when some component scored it, else 0."""
WHOLE = "whole"
"""A guardrail of trials in blocks alone: 1 for a session that was whole within its block, else 0."""


class GuardrailConfig(Section):
    """A behaviour rate in [0, 1] that is no part of the reward and blocks promotion; higher is better."""

    name: str = Field(
        description="its name in the reward spec; `scored`: the share of sessions that were scored at all"
    )
    margin: float = Field(gt=0.0, lt=1.0, description="the candidate may be worse by less than this")
    missing: Rate | None = Field(
        None, description="what a session without it counts as, in both arms; none: such a session lets nothing pass"
    )
    required: bool = Field(True, description="false: judged where `min_champion_units` stable sessions reported it")

    @model_validator(mode="after")
    def _has_a_value_where_reported(self) -> "GuardrailConfig":
        if not self.required and self.missing is None:
            raise ValueError(
                f"{self.name}: with `required: false`, say in `missing` what a session without it counts as"
            )
        return self


GUARDRAILS = (
    GuardrailConfig(name="completed", margin=0.02),
    GuardrailConfig(name="substance", margin=0.02),
    GuardrailConfig(name="latency", margin=0.05),
    GuardrailConfig(name="brevity", margin=0.05),
    GuardrailConfig(name="tools", margin=0.03),
    GuardrailConfig(name="refusals", margin=0.03),
    GuardrailConfig(name="questions", margin=0.05),
    GuardrailConfig(name=SCORED, margin=0.05),
    GuardrailConfig(name="kept", margin=0.05, required=False, missing=0.5),
)


class GateConfig(Section):
    """The betting e-process: see `serving/rollout/evidence/bets.py`."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    alpha_rollback: float = Field(0.05, gt=0.0, lt=0.5)
    margin: float = Field(0.02, gt=0.0, lt=1.0, description="delta: worse by this or more is a false promotion")
    missing: Rate | None = Field(
        None, description="what a session that nothing scored counts as, in both arms; none: the spec's `silence`"
    )
    ramp: tuple[RampStep, ...] = (RampStep(share=0.1, until_units=200), RampStep(share=0.5))
    guardrails: tuple[GuardrailConfig, ...] = Field(GUARDRAILS, description="each by its name in the reward spec")
    min_champion_units: int = Field(30, ge=2, le=500, description="stable sessions needed before a trial may begin")
    settle_s: float = Field(
        3600.0,
        ge=0.0,
        description="a session is evidence once another began this much later: longer than nearly all"
        " take to be scored, or those that fail slowly are missing when it is decided",
    )
    max_units: int = Field(20_000, ge=1)
    max_s: Seconds = Field(86_400.0, description="of the time in which sessions come; see `idle_s`")
    idle_s: Seconds = Field(900.0, description="of the time between two sessions, at most this counts")
    max_wall_s: Seconds = Field(604_800.0, description="by the clock, however few sessions came")
    max_units_per_user: int = Field(
        1,
        ge=1,
        description="sessions of one user that count in a trial: the first ones; above 1 they count as independent",
    )
    max_tenant_share: AnyShare = Field(1.0, description="of the sessions that count; never below twice an equal share")

    @model_validator(mode="after")
    def _ramp_ends_open(self) -> "GateConfig":
        if not self.ramp or self.ramp[-1].until_units is not None:
            raise ValueError("ramp: the last step must have no `until_units`, so that every unit has a share")
        if any(step.until_units is None for step in self.ramp[:-1]):
            raise ValueError("ramp: only the last step may lack `until_units`")
        return self


class WatchConfig(Section):
    """The watch over a version that was just promoted: see `serving/rollout/evidence/watching.py`."""

    share: float = Field(
        0.1, ge=0.0, le=0.5, description="of sessions stay on the version before, on candidate engines; 0: no watch"
    )
    alpha: float = Field(
        0.05, gt=0.0, lt=0.5, description="how often a version as good as the one before is taken back"
    )
    min_units: int = Field(100, ge=1, description="sessions before it may end well; the next trial waits for them")
    max_units: int = Field(2000, ge=1, description="sessions after which it ends")
    max_s: Seconds = Field(86_400.0, description="seconds after which it ends, if `min_units` were seen")

    @model_validator(mode="after")
    def _ends(self) -> "WatchConfig":
        if self.min_units > self.max_units:
            raise ValueError(f"min_units: must be at most `max_units` ({self.max_units}), got {self.min_units}")
        return self


class Placement(StrEnum):
    """Which engines serve an arm."""

    SPLIT = "split"
    SWITCHBACK = "switchback"


class SwitchbackConfig(Section):
    """Arms that take turns on the same engines: see docs/switchback.md."""

    block_s: Seconds = Field(15.0, description="a block's length, at least: thrice stable's usual session")
    whole_margin: Share = Field(0.05, description="fewer of the candidate's sessions may fit their block, by less")
    live_only: bool = Field(
        False, description="one engine: no suites, no replay, users meet a candidate first; to be said with one engine"
    )


class RolloutConfig(Host):
    """The controller of what is served."""

    placement: Placement = Field(
        Placement.SPLIT, description="`split`: engines of two arms; `switchback`: one pool, arms take turns on it"
    )
    switchback: SwitchbackConfig = SwitchbackConfig()
    gate: GateConfig = GateConfig()
    suites: SuitesConfig = SuitesConfig()
    replay: ReplayConfig = ReplayConfig()
    watch: WatchConfig = WatchConfig()
    approval: bool = Field(False, description="a version that passed the gate waits for `onstream rollout promote`")
    port: Port = Field(8100, description="the trial's state for all, and commands with the control token")
    tick_s: Seconds = 0.5
    idle_candidates_serve: bool = Field(True, description="candidate engines serve stable while no trial needs them")
    drain_s: Seconds = Field(60.0, description="how long a candidate engine may take to finish stable requests")

    @model_validator(mode="after")
    def _names_are_free(self) -> "RolloutConfig":
        taken = [rail.name for rail in self.gate.guardrails if rail.name == WHOLE]
        if taken and self.placement is Placement.SWITCHBACK:
            raise ValueError(f"gate.guardrails: {WHOLE!r} is a guardrail of trials in blocks, name yours otherwise")
        return self


class LaneConfig(Section):
    """The replay lane: idle engines answer users' prompts again, for groups that train: see docs/replay_lane.md."""

    share: Rate = Field(0.0, description="of the prompts that could be asked again, the most uncertain; 0: no lane")
    group_size: int = Field(4, ge=2, le=64, description="answers to a prompt, beside the one that its user had")
    replays_per_hour: int = Field(1200, ge=1, description="of all engines together")
    groups_per_user: int = Field(4, ge=1, description="prompts of one user in an hour")
    max_age_s: Seconds = Field(3600.0, description="a prompt waits this long, at most, for an engine to be idle")
    group_s: Seconds = Field(300.0, description="a group is asked for this long, at most, users' requests in between")

    @model_validator(mode="after")
    def _asks_for_whole_groups(self) -> "LaneConfig":
        if self.replays_per_hour < self.group_size:
            raise ValueError(
                f"replays_per_hour: must allow a group of group_size {self.group_size}, got {self.replays_per_hour}"
            )
        return self


class ServingConfig(Section):
    """Engines, router, capture, rollout and the replay lane."""

    engines: tuple[EngineSlot, ...] = (
        EngineSlot(id="stable-0", arm="stable", port=8001, control_port=8101),
        EngineSlot(id="candidate-0", arm="candidate", port=8002, control_port=8102),
    )
    engine: EngineConfig = EngineConfig()
    router: RouterConfig = RouterConfig()
    capture: CaptureConfig = CaptureConfig()
    rollout: RolloutConfig = RolloutConfig()
    lane: LaneConfig = LaneConfig()

    def bound(self, slot: EngineSlot) -> str:
        """The address that an engine binds."""
        return self.engine.listen or slot.host

    @model_validator(mode="after")
    def _slots(self) -> "ServingConfig":
        ids = [slot.id for slot in self.engines]
        if len(set(ids)) != len(ids):
            raise ValueError(f"engines: ids must differ, got {ids}")
        ports = [f"{slot.host}:{port}" for slot in self.engines for port in slot.ports]
        if len(set(ports)) != len(ports):
            raise ValueError(f"engines: ports must differ, got {ports}")
        return self

    @model_validator(mode="after")
    def _arms(self) -> "ServingConfig":
        if self.rollout.placement is Placement.SWITCHBACK:
            return self._one_pool()
        for arm in ("stable", "candidate"):
            if not any(slot.arm == arm for slot in self.engines):
                raise ValueError(f"engines: at least one must have `arm: {arm}`")
        return self

    def _one_pool(self) -> "ServingConfig":
        if not self.engines:
            raise ValueError("engines: there must be one")
        if (len(self.engines) == 1) is not self.rollout.switchback.live_only:
            raise ValueError(
                "rollout.switchback.live_only: must be true with one engine, on which no suite and no replay can run "
                f"before users meet a candidate, and false with more; got {len(self.engines)} engines"
            )
        return self

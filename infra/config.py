"""The one configuration: `onstream.yaml`, a frozen model per stage, unknown keys refused.

Precedence: environment (`ONSTREAM__SERVING__ROUTER__PORT=9000`), then the file, then the defaults here.
Secrets never stand in the file: the control plane's token is read from `ONSTREAM_CONTROL_TOKEN`, the scorers' from
`ONSTREAM_SCORING_TOKEN`, the master secret of users' keys from where `privacy` says, and API keys are known by their
digests.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import ConfigError
from infra.explain import explain

ENV_PREFIX = "ONSTREAM__"
CONTROL_TOKEN_VAR = "ONSTREAM_CONTROL_TOKEN"  # the variable's name, not its value  # noqa: S105
SCORING_TOKEN_VAR = "ONSTREAM_SCORING_TOKEN"  # noqa: S105

Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
AnyShare = Annotated[float, Field(gt=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
KeyDigest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Tenant = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LogConfig(Section):
    """The event log (Kafka protocol)."""

    brokers: str = "127.0.0.1:9092"
    local: bool = Field(True, description="`onstream up` starts a small Kafka-protocol broker on `brokers` itself")
    partitions: int = Field(4, ge=1)
    replication: int = Field(1, ge=1)
    retention_s: Seconds = 86_400.0
    assignor: Literal["eager", "cooperative"] = "eager"
    timeout_s: Seconds = 30.0
    index_dir: str = Field("", description="copies of what topics say, for quick restarts; empty: `<run_dir>/index`")
    max_record_bytes: int = Field(
        983_040, ge=1024, le=16_000_000, description="larger values lie at `claims_url`; a broker's own limit is 1 MiB"
    )
    claims_url: str = Field("", description="an fsspec URL that all processes reach; empty: `<store.url>/claims`")


class StoreConfig(Section):
    """The weight store, an fsspec URL, and where engines keep verified copies of its versions."""

    url: str = Field("", description="empty: `<run_dir>/store`")
    cache_dir: str = Field("", description="empty: `<run_dir>/cache`")
    keep_in_cache: int = Field(2, ge=2, description="serving version and the one to roll back to")


class ModelConfig(Section):
    """The base model: a Hugging Face folder, and the name clients ask for."""

    path: str
    name: str = "policy"


class EngineSlot(Section):
    """One engine process and the arm it belongs to while a trial runs."""

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
    extra_args: tuple[str, ...] = Field((), description="more vLLM flags, as its command line takes them")


class RouterConfig(Section):
    """The front door."""

    host: str = "127.0.0.1"
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


class GuardrailConfig(Section):
    """A behaviour rate that is no part of the reward and blocks promotion."""

    name: str
    margin: float = Field(gt=0.0, lt=1.0, description="the candidate may be worse by less than this")


class GateConfig(Section):
    """The betting e-process: see `serving/gate.py`."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    alpha_rollback: float = Field(0.05, gt=0.0, lt=0.5)
    margin: float = Field(0.02, gt=0.0, lt=1.0, description="delta: worse by this or more is a false promotion")
    ramp: tuple[RampStep, ...] = (RampStep(share=0.1, until_units=200), RampStep(share=0.5))
    guardrails: tuple[GuardrailConfig, ...] = Field(
        (GuardrailConfig(name="completed", margin=0.02), GuardrailConfig(name="substance", margin=0.02)),
        description="each by its name in the reward spec",
    )
    min_champion_units: int = Field(30, ge=2, description="stable sessions needed before a trial may begin")
    max_units: int = Field(20_000, ge=1)
    max_s: Seconds = 86_400.0
    max_units_per_user: int = Field(2, ge=1, description="sessions of one user that count in a trial: the first ones")
    max_tenant_share: AnyShare = Field(1.0, description="of the sessions that count; never below twice an equal share")

    @model_validator(mode="after")
    def _ramp_ends_open(self) -> "GateConfig":
        if not self.ramp or self.ramp[-1].until_units is not None:
            raise ValueError("ramp: the last step must have no `until_units`, so that every unit has a share")
        if any(step.until_units is None for step in self.ramp[:-1]):
            raise ValueError("ramp: only the last step may lack `until_units`")
        return self


class RolloutConfig(Section):
    """The controller of what is served."""

    gate: GateConfig = GateConfig()
    host: str = "127.0.0.1"
    port: Port = Field(8100, description="the trial's state, read-only")
    tick_s: Seconds = 0.5
    idle_candidates_serve: bool = Field(True, description="candidate engines serve stable while no trial needs them")
    drain_s: Seconds = Field(60.0, description="how long a candidate engine may take to finish stable requests")


class ServingConfig(Section):
    """Engines, router, capture, rollout."""

    engines: tuple[EngineSlot, ...] = (
        EngineSlot(id="stable-0", arm="stable", port=8001, control_port=8101),
        EngineSlot(id="candidate-0", arm="candidate", port=8002, control_port=8102),
    )
    engine: EngineConfig = EngineConfig()
    router: RouterConfig = RouterConfig()
    capture: CaptureConfig = CaptureConfig()
    rollout: RolloutConfig = RolloutConfig()

    @model_validator(mode="after")
    def _slots(self) -> "ServingConfig":
        ids = [slot.id for slot in self.engines]
        if len(set(ids)) != len(ids):
            raise ValueError(f"engines: ids must differ, got {ids}")
        ports = [f"{slot.host}:{port}" for slot in self.engines for port in slot.ports]
        if len(set(ports)) != len(ports):
            raise ValueError(f"engines: ports must differ, got {ports}")
        for arm in ("stable", "candidate"):
            if not any(slot.arm == arm for slot in self.engines):
                raise ValueError(f"engines: at least one must have `arm: {arm}`")
        return self


class LakeConfig(Section):
    """The lake: what was on the topics as Parquet files, kept after their retention."""

    enabled: bool = Field(True, description="`onstream up` runs the stage that writes it")
    url: str = Field("", description="an fsspec URL; empty: `<run_dir>/lake`")
    flush_s: Seconds = Field(60.0, description="records are in the lake this long after they were read, at most")
    max_rows: int = Field(20_000, ge=1, description="rows in memory before they are written sooner than that")
    retention_days: int | None = Field(365, ge=1, description="days older than this are dropped; null: none ever is")


class ContaminationConfig(Section):
    """Evaluation tasks that must never train: see `ingest/sessions/contamination.py`."""

    tasks: tuple[str, ...] = Field((), description="files of tasks: JSON Lines, or text in paragraphs")
    overlap: AnyShare = Field(0.5, description="share of a task's runs of 13 words that makes a turn contaminated")


class IngestConfig(Section):
    """Sessions: when they close, and who never trains; the lake."""

    inactivity_s: Seconds = 900.0
    horizon_s: Seconds = 86_400.0
    held_out_share: float = Field(0.05, ge=0.0, lt=1.0, description="once raised, never to be lowered")
    held_out_salt: str = Field("onstream", description="another salt holds out others: what trained is not unlearned")
    held_out_by: Literal["session", "user"] = Field("session", description="`user`: all sessions of a user, or none")
    contamination: ContaminationConfig = ContaminationConfig()
    lake: LakeConfig = LakeConfig()


class RewardsConfig(Section):
    """The reward spec to score with, and how much may wait for slow scorers."""

    spec: str = Field("", description="a reward spec file; empty: the shipped default")
    max_waiting: int = Field(256, ge=1, description="trajectories that wait for slow scorers at a time")
    max_wait_s: Seconds = Field(300.0, description="how long a trajectory may wait for slow scorers, outages included")


PatternName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,30}$")]
PrivateKind = Literal["email", "phone", "card", "iban", "ssn", "ip", "secret", "data"]


class PrivacyConfig(Section):
    """What users typed: redacted before it is written anywhere, and sealed under keys of their own, to be erased."""

    redact: tuple[PrivateKind, ...] = Field(get_args(PrivateKind), description="kinds to redact; empty: none of these")
    patterns: Mapping[PatternName, str] = Field(
        {}, description="own kinds: name -> regular expression, as RE2 has them"
    )
    train_altered: bool = Field(False, description="turns with something redacted train all the same")
    seal: bool = True
    keys_url: str = Field("", description="the subjects' keys, an fsspec URL; empty: `<run_dir>/keys`")
    secret_file: str = Field("", description="the master secret; empty: `<run_dir>/secret`, made on first use")
    secret_env: str = Field("", description="the environment variable that holds the master secret instead")
    key_cache_s: Seconds = Field(30.0, description="how long an erased key may still be used by who had it before")

    @model_validator(mode="after")
    def _own_names(self) -> "PrivacyConfig":
        taken = sorted(self.patterns.keys() & set(get_args(PrivateKind)))
        if taken:
            raise ValueError(f"patterns: a name must not be that of a shipped kind, got {taken}")
        return self

    @model_validator(mode="after")
    def _one_secret(self) -> "PrivacyConfig":
        if self.secret_file and self.secret_env:
            raise ValueError("the secret comes from `secret_file` or from `secret_env`, got both")
        return self


class TrainerConfig(Section):
    """The learner."""

    batch_turns: int = Field(256, ge=2, description="scored turns in one update")
    minibatch_turns: int = Field(64, ge=1, description="turns in one optimiser step")
    microbatch_tokens: int = Field(2048, ge=16, description="padded tokens in one forward and backward pass")
    lr: float = Field(1e-6, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    clip_low: float = Field(0.2, gt=0.0, lt=1.0)
    clip_high: float = Field(0.28, gt=0.0)
    max_importance_weight: float = Field(2.0, gt=1.0)
    baseline_decay: float = Field(0.95, gt=0.0, lt=1.0)
    late_feedback_s: Seconds = Field(60.0, description="how long an unscored turn waits for feedback that comes late")
    max_user_share: AnyShare = Field(0.1, description="of a batch; never below twice an equal share")
    max_tenant_share: AnyShare = Field(1.0, description="of a batch; never below twice an equal share")
    near_duplicate_from: AnyShare = Field(0.75, description="similarity from which on two prompts are near duplicates")
    near_duplicate_window: int = Field(
        2048, ge=0, description="earlier turns of a tenant that prompts are compared with"
    )
    max_staleness: int = Field(1, ge=0, description="promotions a token's weights may lie behind the learner's")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"
    threads: int = Field(2, ge=1)
    niceness: int = Field(10, ge=0, le=19, description="priority below serving's, where they share a machine")
    seed: int = 0
    checkpoint_dir: str = Field("", description="empty: `<run_dir>/trainer`")
    ray_address: str = Field("local", description="`local` starts Ray here; else the address of a cluster")


_RUN_DIR = ".onstream"
_BELOW_RUN_DIR = {
    ("store", "url"): "store",
    ("store", "cache_dir"): "cache",
    ("log", "index_dir"): "index",
    ("serving", "capture", "spool_dir"): "spool",
    ("ingest", "lake", "url"): "lake",
    ("privacy", "keys_url"): "keys",
    ("trainer", "checkpoint_dir"): "trainer",
}


class Config(Section):
    """Everything. `run_dir` holds logs, process state and what the other paths do not name.

    Relative paths count from the folder that the command runs in.
    """

    run_dir: str = _RUN_DIR
    model: ModelConfig
    log: LogConfig = LogConfig()
    store: StoreConfig = StoreConfig()
    serving: ServingConfig = ServingConfig()
    ingest: IngestConfig = IngestConfig()
    rewards: RewardsConfig = RewardsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    trainer: TrainerConfig = TrainerConfig()

    @model_validator(mode="before")
    @classmethod
    def _below_run_dir(cls, given: Any) -> Any:
        """Give the paths that were left empty their places, also in sections that are given as objects."""
        if isinstance(given, dict):
            given = {
                name: part.model_dump(exclude_unset=True) if isinstance(part, Section) else part
                for name, part in given.items()
            }
        for (*parents, leaf), name in _BELOW_RUN_DIR.items():
            node = given
            for key in parents:
                node = node.setdefault(key, {}) if isinstance(node, dict) else None
            if isinstance(node, dict) and not node.get(leaf):
                node[leaf] = f"{given.get('run_dir', _RUN_DIR)}/{name}"
        return given

    @property
    def claims_url(self) -> str:
        """Where values lie that are too large for the log."""
        return self.log.claims_url or f"{self.store.url}/claims"

    def dump(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """Read `path`, lay the environment over it, and validate.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value in it cannot be used.
    """
    file = Path(path)
    try:
        raw = yaml.safe_load(file.read_text())
    except FileNotFoundError as exc:
        raise ConfigError(f"configuration {file}: no such file") from exc
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"configuration {file}: not readable as YAML: {exc}") from exc
    if not isinstance(raw, dict):
        raise ConfigError(f"configuration {file}: must be a mapping of sections, got {type(raw).__name__}")
    merged = _overlay(raw, os.environ if environ is None else environ)
    try:
        return Config.model_validate(merged)
    except ValidationError as exc:
        lines = dict.fromkeys(f"  {_explain(error)}" for error in exc.errors())
        raise ConfigError("\n".join([f"configuration {file}:", *lines])) from exc


def _overlay(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Set `a.b.c` for every `ONSTREAM__A__B__C`; values are read as YAML."""
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        *parents, leaf = name.removeprefix(ENV_PREFIX).lower().split("__")
        node = raw
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"environment {name}: `{key}` is not a section")
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as exc:
            raise ConfigError(f"environment {name}: not readable as YAML: {exc}") from exc
    return raw


def _explain(error: Any) -> str:
    if "api_keys" in error["loc"]:  # what is wrong here may be a secret: it is not repeated
        return "serving.router.api_keys: must map the SHA-256 of each API key, 64 hex digits, to a tenant's name"
    return explain(error, Config)

"""Ingest with its lake, privacy, rewards, and the trainer."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from infra.config.advantages import BaselineConfig, TrajectoryWeight
from infra.config.alarms import AlarmsConfig, LrByEss
from infra.config.base import AnyShare, Host, Port, Seconds, Section
from infra.config.learner import LoraConfig
from infra.config.losses import LossConfig, Packing

PatternName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,30}$")]
PrivateKind = Literal["email", "phone", "card", "iban", "ssn", "ip", "secret", "data"]


class LakeConfig(Section):
    """The lake: what was on the topics as Parquet files, kept after their retention."""

    enabled: bool = Field(True, description="`onstream up` runs the stage that writes it")
    url: str = Field("", description="an fsspec URL; empty: `<run_dir>/lake`")
    flush_s: Seconds = Field(60.0, description="records are in the lake this long after they were read, at most")
    max_rows: int = Field(20_000, ge=1, description="rows in memory before they are written sooner than that")
    retention_days: int | None = Field(365, ge=1, description="days older than this are dropped; null: none ever is")


class ContaminationConfig(Section):
    """Evaluation tasks that must never train: see `ingest/sessions/contamination.py`."""

    tasks: tuple[str, ...] = Field((), description="files of tasks: JSON Lines, YAML such as suites, or text")
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


class TrainerConfig(Host):
    """The learner."""

    port: Port = Field(8200, description="how far the next version is, read-only")
    batch_turns: int = Field(256, ge=2, description="scored turns in one update; a version holds one or more of them")
    max_batch_age_s: Seconds = Field(
        86_400.0, description="once the first of its turns has waited so long, `minibatch_turns` are an update too"
    )
    min_version_turns: int = Field(
        1, ge=1, description="scored turns that a version holds before it may be published, unless a bound closes it"
    )
    max_version_turns: int = Field(
        16_384, ge=1, description="scored turns with which a version in the making takes no more: they wait on the log"
    )
    max_version_age_s: Seconds = Field(
        86_400.0, description="from its first update on, after which a version that waits for a trial takes no more"
    )
    max_version_kl: float = Field(
        0.1,
        ge=0.0,
        description="nats per token from stable beyond which a version takes no more; 0: not measured, which saves a "
        "copy of stable's weights",
    )
    min_version_ess: float = Field(
        0.5, ge=0.0, le=1.0, description="effective sample size of its last update below which a version takes no more"
    )
    train_during_trials: bool = Field(
        True,
        description="false where the learner has the cores that engines need meanwhile: turns wait on the log, and "
        "train once the trial is decided",
    )
    minibatch_turns: int = Field(64, ge=1, description="turns in one optimiser step")
    microbatch_tokens: int = Field(
        2048,
        ge=16,
        description="tokens, with padding, in one forward and backward pass; a longer sample has one of its own, and "
        "what samples of a pass begin with alike, where it is more than half of this, comes on top",
    )
    packing: Packing = Field(
        Packing.SHARED,
        description="`packed` fills rows' padding, `shared` also computes what samples begin with alike once; `rows` "
        "has a row for each, for models whose attention is not plain causal",
    )
    logits_chunk_tokens: int = Field(512, ge=1, description="trained tokens whose logits are in memory at a time")
    recompute_activations: bool = Field(
        False,
        description="keep the layers' inputs alone: less memory, one more forward pass",
    )
    compile_layers: bool = Field(
        True,
        description="on a GPU, with one worker: by torch.compile as they are first used, which takes up to a minute "
        "for each kind of pass; false for a model that it cannot compile",
    )
    lr: float = Field(1e-6, gt=0.0)
    lr_by_ess: LrByEss = Field(
        LrByEss.SQRT, description="a step's rate is `lr` times this of its effective sample size, a share of its tokens"
    )
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    loss: LossConfig = LossConfig()
    baselines: BaselineConfig = BaselineConfig()
    trajectory_weight: TrajectoryWeight = Field(
        TrajectoryWeight.TURNS,
        description="`turns`: a trajectory's turns count 1 together; `tokens`: its tokens do; `none`: each turn does",
    )
    alarms: AlarmsConfig = AlarmsConfig()
    late_feedback_s: Seconds = Field(
        86_400.0, description="how long an unscored turn waits for feedback that comes late, of the last 65,536 that do"
    )
    max_user_share: AnyShare = Field(0.1, description="of a batch; never below twice an equal share")
    max_tenant_share: AnyShare = Field(1.0, description="of a batch; never below twice an equal share")
    near_duplicate_from: AnyShare = Field(0.75, description="similarity from which on two prompts are near duplicates")
    near_duplicate_window: int = Field(
        2048, ge=0, description="earlier turns of a tenant that prompts are compared with"
    )
    max_staleness: int = Field(1, ge=0, description="promotions a token's weights may lie behind the learner's")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraConfig | None = Field(None, description="train adapters alone; null: all weights")
    device: str = "cpu"
    workers: int = Field(
        1,
        ge=1,
        description="processes the model is spread over, each with a device of its own; a restart may change it",
    )
    threads: int = Field(2, ge=1, description="of each worker")
    niceness: int = Field(10, ge=0, le=19, description="priority below serving's, where they share a machine")
    seed: int = 0
    checkpoint_dir: str = Field(
        "",
        description="a folder, or, where workers do not see this machine's disk, an fsspec URL; empty: "
        "`<run_dir>/trainer`",
    )
    ray_address: str = Field("local", description="`local` starts Ray here; else the address of a cluster")

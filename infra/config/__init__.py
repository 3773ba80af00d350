"""The one configuration: `onstream.yaml`, a frozen model per stage, unknown keys refused.

Precedence: environment (`ONSTREAM__SERVING__ROUTER__PORT=9000`), then the file, then the defaults here.
Secrets never stand in the file: the control plane's token is read from `ONSTREAM_CONTROL_TOKEN`, the scorers' from
`ONSTREAM_SCORING_TOKEN`, the master secret of users' keys from where `privacy` says, the brokers' password from where
`log.security` says, the key that signs versions from where `store.signing` says, and API keys are known by their
digests.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from infra.config.advantages import BaselineConfig, TrajectoryWeight
from infra.config.alarms import AlarmsConfig, LrByEss
from infra.config.base import Port, Seconds, Section
from infra.config.checks import JudgeConfig, ReplayConfig, SuitesConfig
from infra.config.learner import LoraConfig
from infra.config.log import LogConfig, LogSecurity, ModelConfig, Protocol, SigningConfig, StoreConfig
from infra.config.losses import Correction, LossConfig, LossKind, Packing, StaleNegatives
from infra.config.serving import (
    SCORED,
    WHOLE,
    CaptureConfig,
    EngineConfig,
    EngineSlot,
    GateConfig,
    GuardrailConfig,
    LaneConfig,
    Placement,
    RampStep,
    RolloutConfig,
    RouterConfig,
    ServingConfig,
    SwitchbackConfig,
    WatchConfig,
)
from infra.config.stages import (
    ContaminationConfig,
    IngestConfig,
    LakeConfig,
    PrivacyConfig,
    PrivateKind,
    RewardsConfig,
    TrainerConfig,
)
from infra.errors import ConfigError
from infra.explain import explain

__all__ = [
    "CONTROL_TOKEN_VAR",
    "ENV_PREFIX",
    "SCORED",
    "SCORING_TOKEN_VAR",
    "WHOLE",
    "AlarmsConfig",
    "BaselineConfig",
    "CaptureConfig",
    "Config",
    "ContaminationConfig",
    "Correction",
    "EngineConfig",
    "EngineSlot",
    "GateConfig",
    "GuardrailConfig",
    "HealthConfig",
    "IngestConfig",
    "JudgeConfig",
    "LakeConfig",
    "LaneConfig",
    "LogConfig",
    "LogSecurity",
    "LoraConfig",
    "LossConfig",
    "LossKind",
    "LrByEss",
    "ModelConfig",
    "Packing",
    "Placement",
    "PrivacyConfig",
    "PrivateKind",
    "Protocol",
    "RampStep",
    "ReplayConfig",
    "RewardsConfig",
    "RolloutConfig",
    "RouterConfig",
    "Section",
    "ServingConfig",
    "SigningConfig",
    "StaleNegatives",
    "StoreConfig",
    "SuitesConfig",
    "SwitchbackConfig",
    "TrainerConfig",
    "TrajectoryWeight",
    "WatchConfig",
    "load",
]

ENV_PREFIX = "ONSTREAM__"
CONTROL_TOKEN_VAR = "ONSTREAM_CONTROL_TOKEN"  # the variable's name, not its value  # noqa: S105
SCORING_TOKEN_VAR = "ONSTREAM_SCORING_TOKEN"  # noqa: S105


class HealthConfig(Section):
    """What each process says of itself to who may restart it: `/live`, `/started` and `/ready`."""

    port: Port | None = Field(None, description="null: not at all. One process has it, so each needs a host of its own")
    listen: str = Field("127.0.0.1", description="the address that is bound; in a pod: 0.0.0.0")
    stall_s: Seconds = Field(900.0, description="a main loop that has not turned for this long is stuck, not busy")


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
    health: HealthConfig = HealthConfig()

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

    @model_validator(mode="after")
    def _blocks_settle(self) -> "Config":
        """A block is evidence once its sessions are closed, or which of them closed first would matter."""
        own, closes_s = self.serving.rollout, self.ingest.inactivity_s
        if own.placement is Placement.SWITCHBACK and own.gate.settle_s <= closes_s:
            raise ValueError(
                f"serving.rollout.gate.settle_s: must be above ingest.inactivity_s ({closes_s:g}) where arms take "
                f"turns, got {own.gate.settle_s:g}"
            )
        return self

    @property
    def claims_url(self) -> str:
        """Where values lie that are too large for the log."""
        return self.log.claims_url or f"{self.store.url}/claims"

    @property
    def control_token_path(self) -> Path:
        """Where `onstream up` leaves the control token that it made, for commands of the same user."""
        return Path(self.run_dir) / "control-token"

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

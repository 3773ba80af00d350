"""`onstream bootstrap`: topics, the base model as version 0, and the first release. Safe to repeat."""

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

from infra import cli
from infra.config import Config
from infra.errors import ConfigError
from ingest.log import reader, topics
from ingest.log.protocol import EventLog
from ingest.records.events import Release, ReleaseKind, Version
from ingest.store import releases
from ingest.store.versions import VersionStore
from serving.rollout.placement import place

logger = logging.getLogger(__name__)


def bootstrap(config: Config, log: EventLog, store: VersionStore, now: Callable[[], float] = time.time) -> None:
    """Make what every stage expects to find. `now` is Unix time.

    The first release has it for its epoch, which is above all that a log before this one had, if that was lost: each
    start of a controller took one. So who went on serving through the loss follows this log.

    Raises:
        ConfigError: `model.path` is no Hugging Face folder with safetensors, or another model than was begun with.
    """
    model = require_model(config)
    if 0 in store.versions():
        _require_same(model, store.read(0), config)
    log.create(topics.specs(config.log.partitions, config.log.retention_s))
    if releases.read(log).stable is not None:
        logger.info("released before; nothing to do")
        return
    manifest = store.publish(0, model, None, {"from": config.model.name}, {}, now())
    reader.send(log, topics.VERSIONS, "", manifest)
    first = Release(
        release=0,
        epoch=int(now()),
        kind=ReleaseKind.BOOTSTRAP,
        stable=0,
        engines=place(config.serving.engines, 0, config.serving.rollout),
        reason=f"{config.model.name} is version 0",
        at=now(),
    )
    reader.send(log, topics.RELEASES, "", first)
    log.flush(config.log.timeout_s)
    logger.info("version 0 (%s) is stable", manifest.digest[:12])


def require_model(config: Config) -> Path:
    """The base model's folder. Raises `ConfigError` unless it is in the Hugging Face layout, with safetensors."""
    model = Path(config.model.path)
    if not (model / "config.json").is_file() or not list(model.glob("*.safetensors")):
        raise ConfigError(f"model.path: {model.absolute()} must be a folder with config.json and *.safetensors")
    return model


def _require_same(model: Path, first: Version, config: Config) -> None:
    """Names and sizes of weight files tell models apart; to read hundreds of gigabytes at each start would not."""
    held = {(file.name, file.bytes) for file in first.files if file.name.endswith(".safetensors")}
    if held != {(path.name, path.stat().st_size) for path in model.glob("*.safetensors")}:
        raise ConfigError(
            f"model.path: {model.absolute()} is not the model that the versions in {config.store.url} descend from; "
            "another model needs another `run_dir`, or a `store.url` and topics of its own"
        )


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="onstream bootstrap", description=__doc__)
    cli.add_config(parser)
    args = parser.parse_args(argv)

    def run(config: Config) -> None:
        from ingest.log.connect import connect

        log = connect(config, client_id="bootstrap")
        try:
            bootstrap(config, log, VersionStore.of(config.store, publishes=True))
        finally:
            log.close()

    return cli.guarded(args.config, run)

"""Publish a damaged version into the running loop, as a broken trainer would: noise in every weight matrix."""

import shutil
import tempfile
import time
from pathlib import Path

from infra.config import Config
from ingest.log import reader, topics
from ingest.log.connect import connect
from ingest.records.events import Version
from ingest.store.versions import VersionStore

NOISE = 0.4  # of a matrix's own standard deviation: fluent text turns to babble, every number stays finite


def publish_damaged(config: Config) -> Version:
    """A child of the newest version, damaged, published manifest-last like any other."""
    import torch
    from safetensors.torch import load_file, save_file

    store = VersionStore.of(config.store, publishes=True)
    parent = store.read(store.versions()[-1])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "damaged"
        shutil.copytree(config.model.path, folder)
        for path in folder.glob("*.safetensors"):
            weights = load_file(path)
            for name, weight in weights.items():
                if weight.dim() > 1:
                    wide = weight.float()
                    weights[name] = (wide + NOISE * wide.std() * torch.randn_like(wide)).to(weight.dtype)
            save_file(weights, path, metadata={"format": "pt"})
        version = store.publish(parent.version + 1, folder, parent, {"trace_ids": []}, {"sabotage": 1.0}, time.time())
    log = connect(config, client_id="sabotage")
    try:
        reader.send(log, topics.VERSIONS, "", version)
        log.flush(config.log.timeout_s)
    finally:
        log.close()
    return version

"""The rendered `onstream.yaml`, as the processes in the pods would load it."""

import tempfile
from pathlib import Path

from chartcheck.render import FULLNAME, Manifest
from infra import config
from infra.config import Config


def text_of(manifests: list[Manifest]) -> str:
    """`onstream.yaml`, from the ConfigMap that all pods mount."""
    (found,) = (one for one in manifests if one["kind"] == "ConfigMap" and one["metadata"]["name"] == FULLNAME)
    return str(found["data"]["onstream.yaml"])


def load(manifests: list[Manifest]) -> Config:
    """The configuration. Raises `ConfigError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "onstream.yaml"
        path.write_text(text_of(manifests))
        return config.load(path, environ={})

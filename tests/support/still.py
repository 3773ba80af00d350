"""A learner for where the trainer's other doings are the matter."""

from collections.abc import Sequence
from pathlib import Path

from trainer.learner.batching import Minibatch
from trainer.learner.update import StepMetrics, UpdateMetrics


class StillPolicy:
    """A learner whose weights stay as they are."""

    def load(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def anchor(self, folder: Path | None) -> None: ...

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        return UpdateMetrics.of([StepMetrics(False, 0.1, 1.0, 0.01, 1.0, 0.9, 0.1, 10)])

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("[1]")

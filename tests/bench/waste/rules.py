"""The product's trainer, and the rule that it had: a batch, a trial, and then the next batch."""

from typing import Any

from ingest.store.releases import Decision, Served
from trainer.loop import Trainer


class BatchByBatch(Trainer):
    """A version takes one batch; nothing is learnt while it is on trial; a trial that expires is one that was lost.

    Turns are taken in the order of the log, until they are stale. That the rule before held four batches in memory
    changes nothing of it: what a batch took, and when, was the same.
    """

    def _may_step(self, served: Served) -> bool:
        return super()._may_step(served) and not self._is_on_trial(served) and self.state.making is None

    def _is_ready(self, served: Served) -> bool:
        return bool(self._num_in_making) and not self._is_on_trial(served)

    def _decided(self, candidate: Any, decision: Decision) -> None:
        super()._decided(candidate, Decision.REJECTED if decision is Decision.EXPIRED else decision)

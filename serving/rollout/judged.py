"""What a trial or a watch is judged by: its sessions, or its blocks where arms take turns."""

from collections.abc import Mapping

from infra.config import GateConfig, Placement, RolloutConfig
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Evidence
from serving.rollout.evidence.blocks import with_whole
from serving.rollout.evidence.tally import Totals
from serving.rollout.placement.blocks import Blocks
from serving.rollout.placement.switchback import length_s


def gate_of(config: RolloutConfig) -> GateConfig:
    """The gate: where arms take turns with the guardrail `whole`."""
    is_in_blocks = config.placement is Placement.SWITCHBACK
    return with_whole(config.gate, config.switchback.whole_margin) if is_in_blocks else config.gate


class Judged:
    """The sums over `evidence`; `blocks` are those of the candidate so far."""

    def __init__(self, evidence: Evidence, blocks: Blocks, config: RolloutConfig) -> None:
        self._evidence, self._blocks, self._gate = evidence, blocks, gate_of(config)
        self._is_in_blocks = config.placement is Placement.SWITCHBACK
        self._least_s = config.switchback.block_s

    def block_s(self, stable: int) -> float | None:
        """How long the blocks of a trial beside `stable` are that begins now; none where nobody takes turns."""
        return length_s(self._least_s, self._evidence.session_s(stable)) if self._is_in_blocks else None

    def baselines(self, stable: int) -> dict[str, Baseline] | None:
        """Of the champion, or `None` while there are too few sessions."""
        block_s = self.block_s(stable)
        if block_s is not None:
            return self._evidence.rehearsed(stable, self._gate, block_s)
        return self._evidence.baselines(stable, self._gate)

    def trial(self, candidate: int, baselines: Mapping[str, Baseline]) -> Totals:
        """What a trial comes to, for `judge`."""
        if self._is_in_blocks:
            return self._evidence.in_blocks(candidate, baselines, self._gate, self._blocks.all)
        return self._evidence.trial(candidate, baselines, self._gate)

    def watch(self, promoted: int, baselines: Mapping[str, Baseline], since: float = 0.0) -> Totals:
        """What a watch comes to that began `since`, for `watch`."""
        if self._is_in_blocks:
            arms = (Arm.STABLE, Arm.HOLDBACK)
            return self._evidence.in_blocks(promoted, baselines, self._gate, self._blocks.all, *arms)
        return self._evidence.watch(promoted, baselines, self._gate, since)

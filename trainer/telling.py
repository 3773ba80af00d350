"""What telemetry hears of an update."""

import math
from collections.abc import Iterable
from statistics import fmean

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.records.events import Fate, FateKind
from ingest.store.releases import Served
from trainer.advantages.batch import Batch
from trainer.learner.update import UpdateMetrics
from trainer.phases import Phase


def phases(now: Phase) -> list[tuple[int, names.Told]]:
    """1 for the phase that the trainer is in, 0 for the others."""
    return [(int(one is now), {names.PHASE: one.value}) for one in Phase]


def updated(update: UpdateMetrics) -> None:
    """What the learner's steps came to, whether or not an alarm stops them."""
    telemetry.gauge(metrics.ESS, update.ess)
    telemetry.gauge(metrics.KL, update.kl)
    telemetry.gauge(metrics.CLIP_SHARE, update.clip_fraction)
    telemetry.gauge(metrics.GRAD_NORM, update.grad_norm)
    telemetry.gauge(metrics.LOSS, update.loss)
    telemetry.gauge(metrics.MISMATCH_K1, update.mismatch_k1)
    telemetry.gauge(metrics.MISMATCH_K3, update.mismatch_k3)
    telemetry.gauge(metrics.LR_SCALE, update.lr_scale)
    if math.isfinite(update.entropy):
        telemetry.gauge(metrics.ENTROPY, update.entropy)


def trained(batch: Batch, served: Served) -> None:
    """A batch that stands. `served` is what the release log said when it was made."""
    telemetry.count(metrics.TURNS_TRAINED, len(batch.turns))
    telemetry.count(metrics.TURNS_NEAR_DUPLICATE, batch.fairness.num_near_duplicates)
    telemetry.gauge(metrics.REWARD_MEAN, batch.mean_reward)
    telemetry.gauge(metrics.BATCH_USER_SHARE, batch.fairness.capped.user_share)
    telemetry.gauge(metrics.BATCH_TENANT_SHARE, batch.fairness.capped.tenant_share)
    for age in _ages(batch, served):
        telemetry.record(metrics.STALENESS, age)


def staleness(batch: Batch, served: Served) -> dict[str, float]:
    """As a manifest's metrics: promotions that its turns' oldest weights lay behind."""
    ages = _ages(batch, served)
    return {"staleness": fmean(ages), "staleness_max": float(max(ages))} if ages else {}


def _ages(batch: Batch, served: Served) -> list[int]:
    """Of each turn's oldest weights, where the release log knows them."""
    known = ([age for version in turn.versions if (age := served.age(version)) is not None] for turn in batch.turns)
    return [max(ages) for ages in known if ages]


def ended(fates: Iterable[Fate]) -> None:
    """Turns that never train, by reason; what a reason is about stands behind its colon and is not told."""
    for fate in fates:
        if fate.kind is not FateKind.TRAINED:
            telemetry.count(metrics.TURNS_INELIGIBLE, len(fate.trace_ids), {names.CAUSE: fate.reason.partition(":")[0]})

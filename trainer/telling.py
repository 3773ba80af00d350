"""What telemetry and the log hear of a step, of decisions and of fates."""

import logging
import math
from collections.abc import Iterable
from enum import StrEnum
from statistics import fmean

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.records.events import Fate, FateKind
from ingest.store.releases import Served
from trainer.advantages.batch import Batch, Fairness
from trainer.learner.update import UpdateMetrics
from trainer.phases import Phase
from trainer.state import Making

logger = logging.getLogger(__name__)


class Again(StrEnum):
    """Why turns that were used are taken again."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    STABLE = "another version is stable"


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
    if update.hint_gap is not None:
        telemetry.gauge(metrics.HINT_GAP, update.hint_gap)
    if update.num_hinted is not None:
        telemetry.count(metrics.TURNS_CORRECTED, update.num_hinted)
    if update.stable_kl is not None:
        telemetry.gauge(metrics.STABLE_KL, update.stable_kl)


def trained(batch: Batch, served: Served) -> None:
    """A batch that stands. `served` is what the release log said when it was made."""
    telemetry.count(metrics.TURNS_TRAINED, len(batch.turns))
    telemetry.count(metrics.TURNS_NEAR_DUPLICATE, batch.fairness.num_near_duplicates)
    for shape, num in batch.groups.items():
        telemetry.count(metrics.GROUPS_TRAINED, num, {names.CAUSE: shape.value})
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


def stepped(batch: Batch, update: UpdateMetrics, making: Making) -> None:
    """A step of the version in the making, for who reads the log."""
    _tell_fairness(batch.fairness)
    logger.info(
        "batch %d turns, mean reward %.3f, %d steps, loss %.4f, kl %.5f, ess %.2f, clipped %.3f, grad norm %.3f; the "
        "version in the making holds %d turns",
        len(batch.turns),
        batch.mean_reward,
        update.num_steps,
        update.loss,
        update.kl,
        update.ess,
        update.clip_fraction,
        update.grad_norm,
        making.num_turns,
    )


def _tell_fairness(fairness: Fairness) -> None:
    """The bounds that hold for the batch just trained."""
    capped, numbers = fairness.capped, fairness.numbers()
    logger.info(
        "one user has at most %.3f of the batch's weighted advantages (bound %.3f over %d users, %.3f without it), one "
        "tenant %.3f (bound %.3f over %d); %d near duplicates are down-weighted; %.1f of %d turns count in effect",
        capped.user_share,
        capped.user_cap,
        capped.num_users,
        capped.user_share_before,
        capped.tenant_share,
        capped.tenant_cap,
        capped.num_tenants,
        fairness.num_near_duplicates,
        numbers["fair.effective_turns"],
        len(fairness.weights),
    )


def again(why: Again, num_traces: int) -> None:
    """Traces whose use was in vain, and that the log gives once more."""
    if num_traces:
        logger.info("%d traces are taken again from the log: %s", num_traces, why.value)
        telemetry.count(metrics.TURNS_AGAIN, num_traces, {names.CAUSE: why.value})


def ended(fates: Iterable[Fate]) -> None:
    """Turns that never train, by reason; what a reason is about stands behind its colon and is not told."""
    for fate in fates:
        if fate.kind is not FateKind.TRAINED:
            telemetry.count(metrics.TURNS_INELIGIBLE, len(fate.trace_ids), {names.CAUSE: fate.reason.partition(":")[0]})

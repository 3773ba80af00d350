"""What one user can do to a verdict, and how few of them can bring it about.

One session multiplies a product by at most its factor at the outcome and arm that favour it most, and so the mixture, a
mean of products. Of one user at most `max_units_per_user` sessions count (`serving.rollout.evidence.caps`), so one user
moves log E by at most that many logs of the largest factor, and a bound is reached by no fewer users than its ratio to
this.
"""

import math
from collections.abc import Mapping

from serving.rollout.evidence import bets
from serving.rollout.evidence.lines import USER, harm_line
from serving.rollout.evidence.tally import Totals


def numbers(tally: Totals, threshold: float, split_line: float) -> dict[str, float]:
    """Over all shares of the ramp and of the units so far.

    `log_e.user` is the most by which one user raises or lowers any evidence, `log_harm.user` by which they raise any
    that ends the trial.
    """
    config = tally.config
    pis = {step.share for step in config.ramp} | set(tally.pis)
    most = config.max_units_per_user
    split = most * max(map(bets.most_mismatch, pis))
    needed, moved, harmed = [1], [0.0], [split]
    enough = [math.ceil(split_line / split)]
    for name, measured in tally.measured.items():
        helps = [bets.most_evidence(measured.design, pi) for pi in pis]
        help_most = most * max(up for up, _ in helps)
        hurt_most = most * max(up for up, _ in (bets.most_harm(measured.design, pi) for pi in pis))
        moved += [help_most, *(most * down for _, down in helps)]
        harmed.append(hurt_most)
        needed.append(math.ceil(threshold / help_most))
        enough.append(math.ceil(harm_line(config, name, config.alpha_rollback) / hurt_most))
    return {
        f"log_e.{USER}": max(moved),
        f"log_harm.{USER}": max(harmed),
        "users_needed.promote": float(max(needed)),
        "users_needed.reject": float(min(enough)),
    }


def told(found: Mapping[str, float], verdict: str) -> str:
    """The bound, as a part of a sentence."""
    name = f"log_e.{USER}" if verdict == "promote" else f"log_harm.{USER}"
    least = found[f"users_needed.{verdict}"]
    return f"one user moves this by at most e^{found[name]:.2f}, and fewer than {least:.0f} cannot {verdict} it"

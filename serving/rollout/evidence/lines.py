"""How much evidence of harm is enough, and how the numbers of a standing name an outcome's evidence. Pure."""

import math
from collections.abc import Mapping

from infra.config import GateConfig
from serving.rollout.evidence.tally import REWARD

USER = "user"
"""In an outcome's place: what one user can move (`influence`), which is no outcome."""


def harm_line(config: GateConfig, outcome: str, alpha: float) -> float:
    """Log of the harm that is enough: 1/alpha (Ville). Guardrails share `alpha` among them (Bonferroni)."""
    return (0.0 if outcome == REWARD else math.log(max(1, len(config.guardrails)))) - math.log(alpha)


def by_outcome(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The numbers of a standing that begin with `prefix` (`log_e.`, `log_harm.`), by outcome."""
    found = {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}
    return {name: value for name, value in found.items() if name != USER}

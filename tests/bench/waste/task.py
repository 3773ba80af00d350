"""What users ask and are pleased with, as a bandit that moves: questions, answers, and which answer is right today."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUESTIONS, ANSWERS = 32, 8
RIGHT, WRONG = 0.9, (0.1, 0.5)
"""How often users are pleased: with the right answer, and the bounds between which each wrong one lies."""


@dataclass
class Users:
    """Each day some questions get another right answer. What users do depends on `seed` and the session's number alone:
    two rules meet the same people."""

    seed: int
    changes_a_day: int

    def pleased(self, day: int) -> NDArray[np.float64]:
        """How often users are pleased, of QUESTIONS x ANSWERS, on a day."""
        made = np.random.default_rng((self.seed, 0))
        table = self._drawn(made, QUESTIONS)
        for _ in range(day):
            changed = made.choice(QUESTIONS, self.changes_a_day, replace=False)
            table[changed] = self._drawn(made, self.changes_a_day)
        return table

    @staticmethod
    def _drawn(made: np.random.Generator, num: int) -> NDArray[np.float64]:
        table = made.uniform(*WRONG, (num, ANSWERS))
        table[np.arange(num), made.integers(ANSWERS, size=num)] = RIGHT
        return table

    def draws(self, session: int) -> tuple[int, float, float, float]:
        """Of a session: its question, and three numbers in [0, 1) that settle arm, answer and pleasure."""
        made = np.random.default_rng((self.seed, 1, session))
        question, (arm, answer, pleasure) = int(made.integers(QUESTIONS)), made.random(3)
        return question, float(arm), float(answer), float(pleasure)

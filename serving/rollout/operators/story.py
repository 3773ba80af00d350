"""The story of one trial: what happened when and why, and how the evidence grew. Values only.

Times are Unix seconds. Evidence and lines are natural logs of e-values.
"""

from ingest.records.events import Frozen, Mode, TrialState


class Step(Frozen):
    """One release of the trial. `author` is empty where the controller decided."""

    release: int
    at: float
    share: float
    holdback: int | None
    mode: Mode
    author: str
    reason: str


class Stage(Frozen):
    """A state of the trial, from its first release to the next state's; `reason` is why it began.

    `ended_at` is none while it lasts, and where nothing follows. That of a promoted version ends with its watch.
    """

    state: TrialState
    began_at: float
    ended_at: float | None
    reason: str
    author: str = ""
    steps: tuple[Step, ...] = ()


class Point(Frozen):
    """The evidence at one time, as far as it is known.

    `weakest` is the guardrail with the least evidence, and `harm` the outcome whose evidence of harm is nearest to the
    line at which the trial ends. `is_watch`: of the watch over a promoted version.
    """

    at: float
    num_units: int
    share: float
    is_watch: bool = False
    log_e: float | None = None
    log_threshold: float | None = None
    weakest: str = ""
    weakest_log_e: float | None = None
    harm: str = ""
    log_harm: float | None = None
    harm_line: float | None = None


class Story(Frozen):
    """One trial, told. `told` is how it ended, or how it stands; `notes` say what is missing."""

    version: int
    parent: int | None
    published_at: float | None
    state: TrialState
    is_over: bool
    stages: tuple[Stage, ...]
    points: tuple[Point, ...]
    told: str
    notes: tuple[str, ...] = ()

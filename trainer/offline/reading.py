"""Trajectories in files, as the inbox has them from the log: screened alike, and each trace once.

A line is a reward with its trajectory in it, which `onstream traces export --format trajectories` writes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from infra.errors import ConfigError
from infra.explain import explain
from ingest.records.events import Reward
from ingest.sessions.contamination import TaskIndex
from trainer.eligibility import Ineligible, screen
from trainer.hinting import corrected
from trainer.inbox import Item, owner_of

ENDING = ".jsonl"
_MOST_TOLD = 4
_HINT = "it must be what `onstream traces export --format trajectories` writes"


@dataclass(frozen=True)
class Line:
    """A line's reward, and how many bytes of all files have been read with it."""

    reward: Reward
    place: str
    bytes_read: int


@dataclass(frozen=True)
class Source:
    """Files, in the order they are read."""

    files: tuple[Path, ...]
    num_bytes: int

    @classmethod
    def of(cls, path: Path) -> "Source":
        """A file, or a folder's files that end in `.jsonl`. Raises `ConfigError` where there is none."""
        files = (path,) if path.is_file() else tuple(sorted(path.glob(f"*{ENDING}")))
        if not files:
            raise ConfigError(f"--from {path}: must be a file, or a folder with files that end in {ENDING}")
        return cls(files, sum(file.stat().st_size for file in files))

    def lines(self) -> Iterator[Line]:
        """Every line. Raises `ConfigError` for one that is no trajectory with its reward, naming what it lacks."""
        num = 0
        for file in self.files:
            try:
                with file.open("rb") as opened:
                    for number, data in enumerate(opened, start=1):
                        num += len(data)
                        if data.strip():
                            place = f"{file}:{number}"
                            yield Line(_reward(place, data), place, num)
            except OSError as exc:
                raise ConfigError(f"--from {file}: not readable: {exc}") from exc


def _reward(place: str, data: bytes) -> Reward:
    try:
        reward = Reward.model_validate_json(data)
    except ValidationError as exc:
        raise ConfigError(f"{place}: {_told(exc)}; {_HINT}") from exc
    if reward.trajectory is None:
        raise ConfigError(f"{place}: lacks trajectory, and with it token ids and log-probabilities; {_HINT}")
    return reward


def _told(exc: ValidationError) -> str:
    """What is missing, by its names; else the first thing that is wrong."""
    errors = exc.errors(include_input=False, include_url=False)
    missing = [".".join(map(str, error["loc"])) for error in errors if error["type"] == "missing"]
    if missing:
        rest = len(missing) - _MOST_TOLD
        return f"lacks {', '.join(missing[:_MOST_TOLD])}" + (f" and {rest} more" if rest > 0 else "")
    return explain({**errors[0], "input": "other"})


def newest_of(rewards: Iterable[Reward]) -> dict[str, int]:
    """The latest revision of each trace's rewards."""
    newest: dict[str, int] = {}
    for reward in rewards:
        for name in reward.trace_ids:
            newest[name] = max(newest.get(name, 0), reward.revision)
    return newest


@dataclass
class Screening:
    """Makes items of lines, and counts what does not train.

    `newest` is the latest revision that a trace's rewards have (`newest_of`): as on the log, earlier ones give way to
    it. `num_repeated` traces came in another line, too. Feedback named `hinted_by` says that a turn is corrected.
    """

    tasks: TaskIndex | None
    trains_altered: bool
    newest: Mapping[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    num_repeated: int = 0
    hinted_by: str = ""
    _known: set[str] = field(default_factory=set)

    def anew(self) -> "Screening":
        """For the same lines again."""
        return Screening(self.tasks, self.trains_altered, self.newest, hinted_by=self.hinted_by)

    def item(self, line: Line, number: int) -> Item:
        """What trains of a line, by the same rules as on the log."""
        reward, trajectory = line.reward, line.reward.trajectory
        assert trajectory is not None
        screened = screen(reward, trajectory, self.tasks, self.trains_altered)
        screened = corrected(screened, trajectory, self.hinted_by)
        known, newest = self._known, self.newest
        turns = {n: turn for n, turn in screened.items() if n not in known and reward.revision >= newest.get(n, 0)}
        self.num_repeated += len(screened) - len(turns)
        self._known |= turns.keys()
        self.refused.update(turn.reason.value for turn in turns.values() if isinstance(turn, Ineligible))
        return Item(
            partition=(line.place, 0),
            offset=number,
            revision=reward.revision,
            tenant=reward.tenant,
            spec=reward.spec,
            at=reward.at,
            turns=turns,
            chains=trajectory.chains,
            owner=owner_of(reward, trajectory),
            opened_at=reward.opened_at,
        )

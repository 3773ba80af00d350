"""Who comes in, and what the live picture and the report say of them: users, or agents with their summaries."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from agents import Agents
from crowd import Crowd
from regret import Regret, find
from rich.panel import Panel
from summaries import Tally, Watch
from users import Users
from view import grid, percent, sparkline

from infra.config import Config
from ingest.log import reader, topics
from ingest.log.protocol import EventLog
from ingest.records.events import Release, Reward, Trace, Trajectory

RECENT = 30  # summaries


class Show(Protocol):
    """A crowd, and how it is shown. `hear` tells it what the rollout says, and returns what it makes of that, in words;
    `line` and `rows` come after the end, from the log."""

    @property
    def crowd(self) -> Crowd: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def hear(self, rollout: Mapping[str, Any]) -> str | None: ...
    def panel(self, curve: list[float]) -> Panel: ...
    def progress(self) -> str: ...
    def read(self, log: EventLog) -> None: ...
    def line(self) -> dict[str, Any]: ...
    def rows(self) -> Iterator[tuple[str, str]]: ...


class UsersShow:
    """Users who like short answers."""

    def __init__(self, crowd: Users) -> None:
        self.crowd = crowd

    def start(self) -> None:
        """Nothing of theirs runs on its own."""

    def stop(self) -> None:
        """Nothing of theirs runs on its own."""

    def hear(self, rollout: Mapping[str, Any]) -> str | None:
        """They do not listen."""
        return None

    def panel(self, curve: list[float]) -> Panel:
        seen = self.crowd.experience
        return Panel(
            grid(
                ("requests", f"{seen.requests}   failed {seen.failed}"),
                ("conversations", str(seen.sessions)),
                ("thumbs", f"up {seen.thumbs['up']}   down {seen.thumbs['down']}"),
                ("pleased, 30 s", percent(seen.pleased_share(30.0))),
                ("over time", sparkline(curve)),
            ),
            title=f"users (they like {self.crowd.taste.told}; nobody told the model)",
        )

    def progress(self) -> str:
        return f"pleased {percent(self.crowd.experience.pleased_share(30.0))}"

    def read(self, log: EventLog) -> None:
        """Nothing of theirs is on the log that is not counted already."""

    def line(self) -> dict[str, Any]:
        return {}

    def rows(self) -> Iterator[tuple[str, str]]:
        thumbs = self.crowd.experience.thumbs
        yield "thumbs", f"{thumbs['up']} up, {thumbs['down']} down"


class RegretShow(UsersShow):
    """Users who change their mind once a version was promoted for what they liked until then."""

    def __init__(self, crowd: Users) -> None:
        super().__init__(crowd)
        self._found: Regret | None = None

    def hear(self, rollout: Mapping[str, Any]) -> str | None:
        """They turn."""
        if self.crowd.turned_at is not None or not rollout.get("promoted"):
            return None
        self.crowd.turn()
        return f"users change their mind: they like {self.crowd.taste.told} from now on, and nobody tells the system"

    def read(self, log: EventLog) -> None:
        """Find what was taken back, and which replies it still made."""
        self._found = find(reader.replay(log, topics.RELEASES, Release), reader.replay(log, topics.TRACES, Trace))

    def line(self) -> dict[str, Any]:
        found = self._found
        numbers = found.alarm.numbers if found else {}
        return {
            "rolled_back": int(found is not None),
            "bad_served_s": _rounded(self._served_s),
            "bad_after_alarm_s": _rounded(found.after_alarm_s if found else None),
            "reward_watched": _rounded(numbers.get("reward.stable"), 4),
            "reward_holdback": _rounded(numbers.get("reward.holdback"), 4),
            "log_harm": _rounded(numbers.get("log_harm.reward"), 3),
        }

    @property
    def _served_s(self) -> float | None:
        turned_at = self.crowd.turned_at
        return self._found.served_s(turned_at) if self._found and turned_at is not None else None

    def rows(self) -> Iterator[tuple[str, str]]:
        yield from super().rows()
        if self._found is None:
            yield "taken back", "nothing"
        elif (served_s := self._served_s) is not None:
            after_s = self._found.after_alarm_s
            yield "its last token", f"{served_s:.0f} s after users turned, {after_s:.2f} s after the alarm"


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


class AgentsShow:
    """Agents that forget all but their own summary; while they work, the log is watched for what it says of those."""

    def __init__(self, crowd: Agents, config: Config) -> None:
        self.crowd, self._watch = crowd, Watch(config)
        self._tally = self._watch.tally

    def start(self) -> None:
        self._watch.start()

    def stop(self) -> None:
        self._watch.stop()

    def hear(self, rollout: Mapping[str, Any]) -> str | None:
        """They do not listen."""
        return None

    def panel(self, curve: list[float]) -> Panel:
        seen, tally = self.crowd.experience, self._tally
        quality = tally.quality(RECENT)
        lately = [f"{name} {value:.2f}" for name, value in tally.by_component(RECENT).items()]
        return Panel(
            grid(
                ("requests", f"{seen.requests}   failed {seen.failed}   in {seen.sessions} sessions"),
                ("compactions", f"{tally.compactions} recognised of {self.crowd.cuts}"),
                ("summaries", f"{len(tally.scores)} scored" + ("" if quality is None else f", worth {quality:.2f}")),
                ("", "  ".join(lately[:3])),
                ("", "  ".join(lately[3:])),
                ("tests", f"{self.crowd.tasks_passed} passed   {self.crowd.tasks_failed} failed"),
                ("passed, 30 s", f"{percent(seen.pleased_share(30.0))}   {sparkline(curve[-24:])}"),
            ),
            title="agents (they forget all but their own summary)",
        )

    def progress(self) -> str:
        tally, quality = self._tally, self._tally.quality(RECENT)
        parts = " ".join(f"{name} {value:.2f}" for name, value in tally.by_component(RECENT).items())
        return (
            f"compactions {tally.compactions}/{self.crowd.cuts} summaries {len(tally.scores)} "
            f"worth {'-' if quality is None else f'{quality:.2f}'} ({parts}) "
            f"tests {self.crowd.tasks_passed}+ {self.crowd.tasks_failed}-"
        )

    def read(self, log: EventLog) -> None:
        """Count anew, from the whole log."""
        self._tally = Tally()
        for trajectory in reader.replay(log, topics.TRAJECTORIES, Trajectory):
            self._tally.take(trajectory)
        for reward in reader.replay(log, topics.REWARDS, Reward):
            self._tally.take(reward)

    def line(self) -> dict[str, Any]:
        quality = self._tally.quality()
        return {
            "compactions": self._tally.compactions,
            "summaries_scored": len(self._tally.scores),
            "summary_quality": None if quality is None else round(quality, 4),
            "summary_components": {name: round(mean, 4) for name, mean in self._tally.by_component().items()},
            "tasks_passed": self.crowd.tasks_passed,
            "tasks_failed": self.crowd.tasks_failed,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        yield "compactions", f"{self.crowd.cuts} by agents, {self._tally.compactions} recognised"
        yield "summaries", f"{len(self._tally.scores)} scored"
        for name, mean in self._tally.by_component().items():
            yield f"summaries' {name}", f"{mean:.2f}"
        yield "tests", f"{self.crowd.tasks_passed} passed, {self.crowd.tasks_failed} failed"
        yield "sub-agents", str(self.crowd.sub_agents)

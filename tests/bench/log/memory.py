"""What open sessions cost in memory: a process with the real stage that reads 50,000 sessions of two turns each.

They come from a file and not from a broker, message by message, so that what the process holds is the stage's. Words
are those of some hundred drawn sessions, each message decoded on its own; nothing is shared between two sessions.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from drawn import renamed, sessions
from rate import apart, configured, inputs

from infra import lifecycle
from ingest.log import topics
from ingest.log.protocol import Message
from ingest.sessions import assemble

NUM_SESSIONS, NUM_TURNS, NUM_DRAWN = 50_000, 2, 500
PARTITIONS = 4


class FromFile:
    """A log, and its one subscription, whose messages lie in a file: pickled one after the other."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.num = 0
        self.is_over = False

    def subscribe(self, _names: Any, _group: str | None) -> "FromFile":
        return self

    def poll(self, _timeout_s: float, max_messages: int = 500) -> list[Message]:
        found: list[Message] = []
        while len(found) < max_messages and not self.is_over:
            try:
                found.append(Message(*pickle.load(self._file)))
            except EOFError:
                self.is_over = True
        self.num += len(found)
        return found

    def assignment(self) -> frozenset[tuple[str, int]]:
        return frozenset((name, part) for name in ("traces", "feedback") for part in range(PARTITIONS))

    def lag(self, _group: str, names: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(names, self.num)

    def ends(self, _topic: str) -> dict[int, int]:
        return {}

    def replay(self, *_: Any) -> Iterator[Message]:
        return iter(())

    def flush(self, _timeout_s: float) -> None:
        pass

    def commit(self, _positions: Any) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def write(path: Path) -> None:
    """The messages of all sessions, begun within the last minutes, as capture writes them."""
    drawn = list(sessions(NUM_DRAWN, NUM_TURNS, time.time() - 90.0, 30.0))
    offsets = [0] * PARTITIONS
    with path.open("wb") as file:
        for number in range(NUM_SESSIONS // NUM_DRAWN):
            for one in inputs(renamed(session, str(number)) for session in drawn):
                if one.topic == topics.TRACES.name:
                    part = int(one.key, 16) % PARTITIONS
                    pickle.dump((one.topic, part, offsets[part], one.key, one.value, one.headers), file)
                    offsets[part] += 1


def hold(path: Path) -> dict[str, float]:
    """Read it all; what this process took at most, before, and after, and what a tick costs then."""
    with TemporaryDirectory() as folder:
        log = FromFile(path)
        stage = assemble.Assembler(log, configured(Path(folder)))
        lifecycle.collect_rarely()
        before, ticks = psutil.Process().memory_info().rss, []
        while not log.is_over:
            stage.poll()
        for _ in range(5):
            begun = time.process_time()
            stage.close_ended()
            stage.note()
            stage.commit()
            ticks.append(time.process_time() - begun)
        assert len(stage.table) == NUM_SESSIONS
        held = psutil.Process().memory_info().rss - before
        stage.close()
    return {"peak_bytes": _peak_bytes(), "bytes_per_session": held / NUM_SESSIONS, "tick_s": min(ticks)}


def _peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(advance: Callable[[], None]) -> dict[str, float | None]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "messages"
        write(path)
        told = apart("memory.py", str(path))
        size = path.stat().st_size
    advance()
    return {
        "open_sessions": NUM_SESSIONS,
        "open_peak_mib": round(told["peak_bytes"] / 2**20),
        "open_bytes_per_session": round(told["bytes_per_session"]),
        "open_bytes_per_session_on_log": round(size / NUM_SESSIONS),
        "open_tick_cpu_ms": round(told["tick_s"] * 1000, 1),
    }


if __name__ == "__main__":
    print(json.dumps(hold(Path(sys.argv[1]))))

"""Finding private values: how fast and how well, beside Presidio's pattern recognisers and datafog's patterns.

Speed is that of finding, in CPU time of the one thread, on the same chats, the sides in turn: coding and support chats
of about 2.4 kB and 20 kB, text and code of this repository with a labelled text in every 600 characters. How well is on
the labelled texts of `tests/support` (whose held-out part was written before anything was measured, by the same hand),
and on values that Faker makes for 28 countries. A value counts as found where all its letters and digits are inside
found places; a found place counts as right where it touches a value. Only we look for secrets; `shared` is the rest.
Prints a table and one JSON line. The others come with the extra `bench`; nothing is installed here.
"""

import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import redactors
from foreign_values import foreign_texts
from private_texts import Labelled, Part, texts
from redactors import SHARED, Find
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingest.privacy.kinds import Kind
from ingest.privacy.placeholders import Placeholders
from ingest.privacy.redact import Redactor

SIZES = {"2k": 2_400, "20k": 20_000}  # characters of a chat
NUM_CHATS = {"2k": 40, "20k": 5}
ROUNDS = 7
HOSTILE_CHARS = 200_000
TARGETS = {
    "mb_s_ratio_to_presidio": (">=", 1.0),
    "mb_s_ratio_to_datafog": (">=", 1.0),
    "recall_worst_kind": (">=", 0.98),
    "recall_held_out": (">=", 0.98),
    "precision": (">=", 0.98),
    "hostile_growth_worst": ("<=", 8.0),  # linear is 4, quadratic 16
}


def chats(size: str) -> list[list[str]]:
    """Messages of chats: what is ordinary, with a labelled text in every 600 characters."""
    rng = random.Random(size)
    folders = [bench.ROOT / name for name in ("ingest", "rewards", "docs")]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md"))
    ordinary = "\n".join(path.read_text(encoding="utf-8") for path in files)
    made = []
    for _ in range(NUM_CHATS[size]):
        messages = []
        while sum(map(len, messages)) < SIZES[size]:
            at = rng.randrange(len(ordinary) - 600)
            messages.append(ordinary[at : at + 600 - 80] + "\n" + rng.choice(texts()).text)
        made.append(messages)
    return made


def speeds(sides: Mapping[str, Find]) -> dict[str, float]:
    """MB/s over all chats, best of the rounds, and the median trace's time."""
    figures = {}
    for size in SIZES:
        made = chats(size)
        num_bytes = sum(len(message.encode()) for chat in made for message in chat)
        best: dict[str, list[float]] = {}
        for _ in track(range(ROUNDS), f"chats of {size}B"):
            for side, find in sides.items():
                took = [_took_s(find, chat) for chat in made]
                best[side] = took if side not in best else list(map(min, best[side], took))
        for side, took in best.items():
            figures[f"mb_s_{side}_{size}"] = num_bytes / sum(took) / 1e6
            figures[f"us_p50_{side}_{size}"] = statistics.median(took) * 1e6
        figures[f"us_p50_whole_request_{size}"] = statistics.median(_whole_requests(made)) * 1e6
    return figures


def _took_s(find: Find, chat: Sequence[str]) -> float:
    begun = time.thread_time()
    for message in chat:
        find(message)
    return time.thread_time() - begun


def _whole_requests(made: Sequence[Sequence[str]]) -> list[float]:
    """Seconds for what capture does with each: walk the request, find, put placeholders."""
    redactor, took = Redactor(Kind), []
    for n, chat in enumerate(made):
        request = {"model": "policy", "messages": [{"role": "user", "content": message} for message in chat]}
        begun = time.thread_time()
        redactor.redact_json(request, Placeholders(b"0123456789abcdef", str(n)))
        took.append(time.thread_time() - begun)
    return took


def quality(find: Find, labelled: Iterable[Labelled], kinds: Iterable[str]) -> tuple[dict[str, float], float]:
    """Recall by kind, and precision, of what it finds in these texts."""
    hits: dict[str, list[bool]] = defaultdict(list)
    right: list[bool] = []
    for text in labelled:
        places = list(find(text.text))
        inside = {n for start, end in places for n in range(start, end)}
        for label in text.labels:
            whole = all(n in inside for n in range(label.start, label.end) if text.text[n].isalnum())
            hits[label.kind].append(whole)
        right += [any(start < label.end and label.start < end for label in text.labels) for start, end in places]
    return {kind: statistics.mean(hits[kind]) for kind in kinds if hits[kind]}, statistics.mean(right or [False])


def overall(find: Find, labelled: Iterable[Labelled], kinds: Iterable[str]) -> float:
    """Share of all values of these kinds that it finds."""
    counted = [label.kind for text in labelled for label in text.labels]
    recalls, _ = quality(find, labelled, kinds)
    return sum(recalls[kind] * counted.count(kind) for kind in recalls) / sum(map(counted.count, recalls))


def qualities(sides: Mapping[str, Find]) -> dict[str, float]:
    """Recall and precision of every side, and a table of recall by kind."""
    every = texts()
    kinds = [kind.value for kind in Kind if kind is not Kind.DATA]
    table, figures = Table("kind", *sides, title="recall by kind, all labelled texts"), {}
    by_side = {side: quality(find, every, kinds) for side, find in sides.items()}
    for kind in kinds:
        shown = (f"{by_side[side][0][kind]:.3f}" if side == "ours" or kind in SHARED else "-" for side in sides)
        table.add_row(kind, *shown)
    Console().print(table)
    for side, find in sides.items():
        figures[f"recall_shared_{side}"] = overall(find, every, SHARED)
        figures[f"precision_{side}" if side != "ours" else "precision"] = by_side[side][1]
    figures["recall"] = overall(sides["ours"], every, kinds)
    figures["recall_held_out"] = overall(sides["ours"], [t for t in every if t.part is Part.HELD_OUT], kinds)
    figures["recall_worst_kind"] = min(by_side["ours"][0].values())
    negatives = [text for text in every if not text.labels]
    for side, find in sides.items():
        figures[f"negatives_touched_{side}"] = statistics.mean(bool(list(find(text.text))) for text in negatives)
    return figures


def foreign(sides: Mapping[str, Find]) -> dict[str, float]:
    """Recall on Faker's values, where it is installed."""
    try:
        labelled = foreign_texts()
    except ImportError:
        print("faker is not installed (extra `bench`): no figures on its values")
        return {}
    recalls, _ = quality(sides["ours"], labelled, [kind.value for kind in Kind])
    figures = {f"recall_faker_shared_{side}": overall(find, labelled, SHARED) for side, find in sides.items()}
    return figures | {f"recall_faker_{kind}": recall for kind, recall in recalls.items()}


HOSTILE = (
    "1", "1 ", "1-", "a@", "a.", ":", "a:", "::", "token=", "password ", "key ", 'api_key="', "+1", "(", "://", "://a:",
    "\\n", "<", "-----BEGIN PRIVATE KEY-----", "AKIA", "1.1.1.1.", "a dot b at ", "eyJaaaaaaaaa.", "+49 30 1234567\n",
    "call 1234567 ", "DE89 3704 ", '{"', "sk-a", "cookie: a=b1b1b1b1 ",
)  # fmt: skip


def hostile() -> dict[str, float]:
    """Texts that are one thing over and over: the slowest, and how much longer four times the text takes at most."""
    find, rates, growths = redactors.ours(), {}, []
    for unit in track(HOSTILE, "hostile texts"):
        text = unit * (HOSTILE_CHARS // len(unit))
        whole, quarter = (min(_took_s(find, [part]) for _ in range(3)) for part in (text, text[: len(text) // 4]))
        rates[unit] = len(text) / whole / 1e6
        growths.append(whole / quarter)
    slowest = min(rates, key=lambda unit: rates[unit])
    print(f"slowest of {len(HOSTILE)} hostile texts: {json.dumps(slowest)} over and over")
    return {"mb_s_hostile_worst": rates[slowest], "hostile_growth_worst": max(growths)}


def main() -> None:
    sides: dict[str, Find] = {"ours": redactors.ours()}
    for side, made in {"presidio": redactors.presidio(), "datafog": redactors.datafog()}.items():
        if made is None:
            print(f"{side} is not installed (extra `bench`): nothing to compare with")
        else:
            print(f"{side}: {made[0]}")
            sides[side] = made[1]
    figures: dict[str, Any] = speeds(sides)
    for side in ("presidio", "datafog"):
        ratios = [figures[f"mb_s_ours_{s}"] / figures[f"mb_s_{side}_{s}"] for s in SIZES if side in sides]
        figures[f"mb_s_ratio_to_{side}"] = min(ratios, default=None)
    figures |= qualities(sides) | foreign(sides) | hostile()
    bench.report("redact", {name: v if v is None else round(v, 4) for name, v in figures.items()}, TARGETS)


if __name__ == "__main__":
    main()

"""Near-duplicate prompts: which pairs a sketch marks, beside SimHash and libraries, and what a sketch costs.

Pairs are made from this repository's own paragraphs, from templates, and from the demo's questions. A pair is marked
when its estimated similarity is at least the trainer's default. Every side sees the same four-character shingles.
`datasketch` and `rensa` take part where they are installed; they are no dependency. Times are of the processor.
"""

import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench
import numpy as np
from rich.console import Console
from rich.table import Table

from examples.demo.questions import QUESTIONS
from infra.config import TrainerConfig
from ingest.sessions.sketch import NUM_BITS, NUM_CHARS, bits

Pair = tuple[str, str]
Sketch = Callable[[str], Any]
Similarity = Callable[[Any, Any], float]

NAMES = ("Anna", "Bob", "Clara", "Dimitri", "Eleonore", "Farid", "Giovanna", "Hieronymus", "Ines", "Jo", "Liam", "Olga")
TEMPLATES = (
    "Write a short birthday poem for {}, who turns forty on Saturday and likes hiking.",
    "Please draft a polite email to {} asking whether the invoice from March has been paid yet.",
    "Summarise the following support ticket and tell {} what to do next: the printer on the third floor prints blank "
    "pages since this morning, paper and toner are fine.",
)
DEFAULT = TrainerConfig().near_duplicate_from
TARGETS = {
    "marked.exact": (">=", 1.0),
    "marked.edited_400": (">=", 0.95),
    "marked.template": (">=", 0.85),
    "marked.other_question": ("<=", 0.05),
    "marked.unrelated": ("<=", 1e-4),
    "sketch_us": ("<=", 1000.0),
}


def paragraphs() -> list[str]:
    texts = [path.read_text() for path in sorted(bench.ROOT.glob("*.md")) + sorted(bench.ROOT.glob("docs/**/*.md"))]
    found = [" ".join(block.split()).casefold() for text in texts for block in text.split("\n\n")]
    return list(dict.fromkeys(block for block in found if len(block) >= 60))


def pairs(rng: random.Random) -> dict[str, list[Pair]]:
    texts = paragraphs()
    words = [word for text in texts for word in text.split()]

    def edited(length: int) -> Iterable[Pair]:
        long = [text[:length] for text in texts if len(text) >= length]
        while True:
            given = rng.choice(long).split()
            other = given.copy()
            other[rng.randrange(len(other))] = rng.choice(words)
            if other != given:
                yield " ".join(given), " ".join(other)

    named = [[template.format(name).casefold() for name in NAMES] for template in TEMPLATES]
    asked = [[question.casefold() for question in QUESTIONS[form::4]] for form in range(4)]
    return {
        "exact": [(text, text) for text in texts[:200]],
        "edited_60": list(islice(edited(60), 500)),
        "edited_150": list(islice(edited(150), 500)),
        "edited_400": list(islice(edited(400), 500)),
        "template": [_two(rng, rng.choice(named)) for _ in range(500)],
        "other_question": [_two(rng, rng.choice(asked)) for _ in range(1000)],
        "unrelated": [_two(rng, texts) for _ in range(100_000)],
    }


def _two(rng: random.Random, texts: Sequence[str]) -> Pair:
    one, other = rng.sample(texts, 2)
    return one, other


def shingles(text: str) -> list[str]:
    return list({text[at : at + NUM_CHARS] for at in range(max(1, len(text) - NUM_CHARS + 1))})


def simhash(text: str) -> int:
    """Charikar's: the sign of the sum of the shingles' hashed bits."""
    rows = np.frombuffer(b"".join(blake2b(s.encode(), digest_size=8).digest() for s in shingles(text)), np.uint8)
    ones = np.unpackbits(rows.reshape(-1, 8), axis=1).sum(axis=0)
    return int.from_bytes(np.packbits(2 * ones > len(rows) / 8).tobytes())


def by_bits(one: int, other: int) -> float:
    return 1.0 - (one ^ other).bit_count() / (NUM_BITS / 2)


def sides() -> dict[str, tuple[Sketch, Similarity]]:
    found: dict[str, tuple[Sketch, Similarity]] = {
        "onstream": (lambda text: int(bits(text), 16), by_bits),
        "simhash": (simhash, by_bits),
    }
    if importlib.util.find_spec("datasketch"):
        from datasketch import MinHash

        def datasketch(text: str) -> Any:
            made = MinHash(num_perm=NUM_BITS)
            made.update_batch([shingle.encode() for shingle in shingles(text)])
            return made

        found["datasketch, 256 bytes"] = (datasketch, lambda one, other: float(one.jaccard(other)))
    if importlib.util.find_spec("rensa"):
        from rensa import RMinHash

        def rensa(text: str) -> Any:
            made = RMinHash(num_perm=NUM_BITS, seed=1)
            made.update(shingles(text))
            return made

        found["rensa, 256 bytes"] = (rensa, lambda one, other: float(one.jaccard(other)))
    return found


def measure(given: dict[str, list[Pair]], sketch: Sketch, similarity: Similarity) -> dict[str, float]:
    known: dict[str, Any] = {}
    begun = time.process_time()
    for text in {text for name, some in given.items() if name != "unrelated" for pair in some for text in pair}:
        known[text] = sketch(text)
    cost_us = (time.process_time() - begun) / len(known) * 1e6
    for text in {text for pair in given["unrelated"] for text in pair}:
        known.setdefault(text, sketch(text))
    marked = {
        f"marked.{name}": fmean(similarity(known[one], known[other]) >= DEFAULT for one, other in some)
        for name, some in given.items()
    }
    return marked | {"sketch_us": cost_us}


def main() -> None:
    given = pairs(random.Random(0))
    found = {name: measure(given, *side) for name, side in sides().items()}
    table = Table("figure", *found, title=f"share of pairs marked at a similarity of {DEFAULT}")
    for figure in found["onstream"]:
        table.add_row(figure, *(f"{figures[figure]:.4g}" for figures in found.values()))
    Console().print(table)
    bench.report("sketch", found["onstream"], TARGETS)


if __name__ == "__main__":
    main()

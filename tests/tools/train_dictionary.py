"""Train a dictionary for `ingest.records.codec` on `tests/support/skeletons.py`.

    python tests/tools/train_dictionary.py 2

writes dictionary 2 beside the others in `ingest/records`, and prints what it makes of records that it was not trained
on, in shares of what zstd makes of them without one. The same script, records and version of zstd give the same bytes.

A dictionary that was shipped once is never changed or removed, since values on a log name it; asked for one that is
listed, this says whether it would come out the same, and writes nothing. Train one with the next number when the
records' form has changed so much that the printed shares are worth it, and list it in `ingest.records.dictionaries`;
older readers park what is compressed with it.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import zstandard

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import skeletons  # noqa: E402

from ingest.records import codec, dictionaries  # noqa: E402

NUM_SESSIONS = 1500
NUM_BYTES = 8 << 10  # 12 and 16 KiB gain a hundredth more
SEGMENT = {"d": 8, "steps": 40, "f": 20, "accel": 1}  # zstd's own defaults, and its search for `k`


def main(number: int) -> None:
    samples = [plain for _, plain in _drawn(NUM_SESSIONS, seed=0)]
    trained = zstandard.train_dictionary(NUM_BYTES, samples, dict_id=number, level=codec.LEVEL, **SEGMENT)
    assert trained.dict_id() == number
    file = dictionaries.path(number)
    if number not in dictionaries.NUMBERS:
        file.write_bytes(trained.as_bytes())
    print(f"{file.name}: {'as trained' if file.read_bytes() == trained.as_bytes() else 'is another one'}")
    _report(trained, _drawn(NUM_SESSIONS // 10, seed=1))


def _drawn(num_sessions: int, seed: int) -> Iterable[tuple[str, bytes]]:
    return ((record.SCHEMA, record.model_dump_json().encode()) for record in skeletons.records(num_sessions, seed))


def _report(trained: zstandard.ZstdCompressionDict, drawn: Iterable[tuple[str, bytes]]) -> None:
    ways = [zstandard.ZstdCompressor(level=codec.LEVEL), zstandard.ZstdCompressor(level=codec.LEVEL, dict_data=trained)]
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for schema, plain in drawn:
        for place, size in enumerate((len(plain), *(len(way.compress(plain)) for way in ways))):
            sizes[schema][place] += size
    for schema, (plain, without, with_it) in sizes.items():
        print(
            f"{schema:12} {plain:9} bytes, compressed {without:9}, with dictionary {with_it:9}: {with_it / without:.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Sealing a record of 2 kB and opening it again, alone and as a log does it, with the store's cache and the headers.

In one thread, as capture's and a stage's loops are. Figures are processor time, medians of rounds; that of a subject's
first key is wall time, since it waits for the local disk.
"""

import base64
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench

from ingest.privacy.generations import DataKey
from ingest.privacy.keys import KeyStore
from ingest.privacy.seal import associated, seal, unseal
from ingest.privacy.sealed_log import sealed, unsealed
from ingest.privacy.secret import Secret

ROUNDS, EACH, NEW_SUBJECTS = 15, 1000, 200
TARGETS = {"seal_us": ("<", 20.0)}


def record() -> bytes:
    """2 kB of JSON as a trace is: words, and packed numbers that compress to nothing much."""
    rng = random.Random(7)
    words = [f"{rng.choice('bcdfgklmnprst')}{rng.choice('aeiou')}{rng.choice('lmnrst')}{n}" for n in range(300)]
    packed = base64.b64encode(rng.randbytes(600)).decode()
    text = " ".join(rng.choice(words) for _ in range(190))
    return json.dumps({"trace_id": rng.randbytes(16).hex(), "reply_text": text, "token_ids": packed}).encode()[:2048]


def microseconds(run: Callable[[], object], each: int = EACH, clock: Callable[[], float] = time.process_time) -> float:
    def once() -> float:
        begun = clock()
        for _ in range(each):
            run()
        return (clock() - begun) / each * 1e6

    return statistics.median(once() for _ in range(ROUNDS))


def main() -> None:
    value, headers = record(), {"schema": "trace/3", "subject": "user-0a1b"}
    with tempfile.TemporaryDirectory() as folder:
        store = KeyStore(folder, Secret.parse(os.urandom(32).hex(), "bench"), cache_s=3600.0)
        key = store.key_for("user-0a1b")
        what = associated("trace/3", key)
        closed = seal(value, key, what)
        kept = sealed(value, headers, store)
        subjects = map("user-{}".format, range(NEW_SUBJECTS * ROUNDS))
        figures = {
            "record_bytes": len(value),
            "sealed_bytes": len(closed),
            "seal_us": microseconds(lambda: seal(value, key, what)),
            "unseal_us": microseconds(lambda: unseal(closed, key, what)),
            "seal_with_headers_and_store_us": microseconds(lambda: sealed(value, headers, store)),
            "unseal_with_headers_and_store_us": microseconds(lambda: unsealed(*kept, store)),
            "seal_cipher_not_kept_us": microseconds(
                lambda: seal(value, DataKey(key.subject, key.generation, key.secret), what)
            ),
            "first_key_of_a_subject_us": microseconds(
                lambda: store.key_for(next(subjects)), NEW_SUBJECTS, time.perf_counter
            ),
        }
    bench.report("seal", figures, TARGETS)


if __name__ == "__main__":
    main()

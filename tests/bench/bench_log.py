import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).with_name("log"))]
import json
import time

import bench
import size
from drawn import sessions

b = time.time()
d = list(sessions(200, 20))
print(
    "draw",
    time.time() - b,
    sum(len(t["token_ids"]) for t in d[0]["turns"]) / 20,
    len(d[0]["turns"][-1]["prompt_token_ids"]),
)
print([t["reply_text"] for t in d[3]["turns"]][-3:])
from tempfile import TemporaryDirectory

with TemporaryDirectory() as f:
    size._release_before(Path(f))
    for n in (1, 5, 20):
        d = list(sessions(100, n))
        size.NUM_SESSIONS = 100
        b = time.time()
        old, new = size.made(Path(f), d), size.made(bench.ROOT, d)
        print(n, time.time() - b)
        print(json.dumps(size._figures(n, old, new), indent=1))
        print(size.by_topic(old))
        print(size.by_topic(new))

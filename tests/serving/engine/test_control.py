"""The swap's steps over an engine that records them, with a real store and real files."""

import asyncio
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from intakes import intake, spelled
from safetensors.torch import load_file, save_file
from told import telling

from infra.errors import StoreError
from infra.telemetry import metrics
from ingest.store import adapters
from ingest.store.adapters import Adapter
from ingest.store.versions import VersionStore
from serving.engine import cache, control, loader
from serving.engine.capture import Capture
from serving.engine.idle import Users
from serving.engine.loader import Loader
from serving.engine.recent import Recent
from serving.spool import Spool

TOKEN = "secret"


class Engine:
    """`AsyncLLM`'s methods for a swap. `breaks_on` folders fail to load."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loaded: list[str] = []
        self.breaks_on: set[int] = set()

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        assert (mode, clear_cache) == ("keep", False)
        self.calls.append("pause")

    async def resume_generation(self) -> None:
        self.calls.append("resume")

    async def start_weight_update(self) -> None:
        self.calls.append("start")

    async def update_weights(self, request: Any) -> None:
        self.calls.append("update")
        folder = Path(request.update_info["folder"]).name
        if int(folder.partition("-")[0]) in self.breaks_on:
            raise ValueError("shapes differ")
        self.loaded.append(folder)

    async def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append(f"finish {weight_version}")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = VersionStore(str(folder / "store"))
        self.spool = Spool(folder / "spool", 1 << 20, 1 << 16)
        self.engine, self.capture = Engine(), Capture(self.spool, "e0", 0, Recent(0, 0.0), intake(), spelled)
        for number in range(4):
            self.publish(number, torch.full((2, 2), float(number)))
        self.loader = Loader(self.store, folder / "cache", 2, self.store.read(0))
        self.users = Users()
        self.app = control.application(self.loader, self.engine, self.capture, self.users, "e0", TOKEN)

    def publish(self, number: int, weight: torch.Tensor, words: str = "{}") -> None:
        made = self.folder / f"made-{number}"
        made.mkdir()
        (made / "tokenizer.json").write_text(words)
        save_file({"w.weight": weight}, made / "model.safetensors")
        self.store.publish(number, made, self.store.read(number - 1) if number else None, {}, {}, time.time())

    def publish_adapters(self, number: int, base: int) -> None:
        """1 more than its base, in all weights."""
        made = self.folder / f"made-{number}"
        made.mkdir()
        change = Adapter(torch.ones(1, 2), torch.ones(2, 1))
        for name, data in adapters.files({"w.weight": change}, rank=1, alpha=1.0).items():
            (made / name).write_bytes(data)
        above = self.store.read(base)
        self.store.publish(number, made, above, {}, {}, time.time(), above)

    async def call(self, method: str, path: str, token: str = TOKEN, **kwargs: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://e0") as client:
            return await client.request(method, path, headers={"authorization": f"Bearer {token}"}, **kwargs)

    async def load(self, version: int) -> httpx.Response:
        return await self.call("POST", "/load", json={"version": version})


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def request(update_info: dict[str, str]) -> SimpleNamespace:
        return SimpleNamespace(update_info=update_info)

    async def replace(engine: Engine, folder: Path, version: int) -> None:
        await engine.start_weight_update()
        await engine.update_weights(request({"folder": str(folder)}))
        await engine.finish_weight_update(str(version))

    monkeypatch.setattr(loader, "_replace", replace)  # vLLM's request class alone costs 15 s to import
    held = Bench(tmp_path)
    yield held
    held.spool.close()


async def test_a_load_pauses_replaces_labels_and_resumes_in_that_order(bench: Bench) -> None:
    answer = await bench.load(1)
    assert answer.status_code == 200
    assert bench.engine.calls == ["pause", "start", "update", "finish 1", "resume"]
    assert (bench.capture.version, bench.capture.epoch) == (1, 1)
    assert (await bench.call("GET", "/status")).json()["version"] == 1
    assert cache.remembered(bench.folder / "cache") == 1


async def test_a_version_that_does_not_load_leaves_the_one_before_serving(bench: Bench) -> None:
    bench.engine.breaks_on = {1}
    answer = await bench.load(1)
    assert answer.status_code == 409
    assert "version 1 did not load, serving 0: shapes differ" in answer.json()["error"]
    assert bench.engine.loaded[-1].startswith("000000-")
    assert bench.engine.calls[-1] == "resume"
    assert (bench.capture.version, bench.loader.serving.version) == (0, 0)


async def test_an_engine_that_has_no_version_whole_makes_no_more_tokens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(loader.os, "kill", lambda _pid, number: ended.append(number))
    bench.engine.breaks_on = {0, 1}
    assert (await bench.load(1)).status_code == 409
    assert (ended, "resume" in bench.engine.calls) == ([signal.SIGTERM], False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_one_weight_that_is_not_finite_is_found_wherever_it_lies(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    weights = torch.arange(-50, 50).to(dtype)
    save_file({"a": weights, "empty": torch.zeros(0), "ids": torch.arange(3)}, tmp_path / "w.safetensors")
    cache.check_finite(tmp_path, 7)
    weights[61] = value
    save_file({"a": weights}, tmp_path / "w.safetensors")
    with pytest.raises(StoreError, match="version 7: a holds a NaN or an infinity"):
        cache.check_finite(tmp_path, 7)


async def test_weights_that_are_not_finite_never_pause_the_engine(bench: Bench) -> None:
    bench.publish(4, torch.tensor([[1.0, float("nan")]]))
    answer = await bench.load(4)
    assert answer.status_code == 409
    assert "w.weight holds a NaN or an infinity" in answer.json()["error"]
    assert bench.engine.calls == []


async def test_a_file_that_holds_no_tensors_never_pauses_the_engine(bench: Bench) -> None:
    made = bench.folder / "made-by-hand"
    made.mkdir()
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"no tensors")
    bench.store.publish(4, made, bench.store.read(3), {}, {}, time.time())
    answer = await bench.load(4)
    assert answer.status_code == 409
    assert "version 4: model.safetensors is no safetensors file" in answer.json()["error"]
    assert bench.engine.calls == []


async def test_another_tokenizer_never_pauses_the_engine(bench: Bench) -> None:
    bench.publish(4, torch.ones(2, 2), words='{"a": 1}')
    answer = await bench.load(4)
    assert answer.status_code == 409
    assert "version 4: its tokenizer.json must be that of version 0" in answer.json()["error"]
    assert bench.engine.calls == []


async def test_a_flipped_byte_in_the_store_never_pauses_the_engine(bench: Bench) -> None:
    (file,) = (bench.folder / "store").glob("versions/000001-*/model.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    answer = await bench.load(1)
    assert answer.status_code == 409
    assert "model.safetensors must have sha256" in answer.json()["error"]
    assert bench.engine.calls == []


@pytest.mark.parametrize(
    "body", ['{"version": "1"}', '{"version": true}', '{"version": 1, "n": 1}', "[1]", "{not json"]
)
async def test_a_malformed_load_is_answered_with_what_it_must_be(bench: Bench, body: str) -> None:
    answer = await bench.call("POST", "/load", content=body)
    assert answer.status_code == 400
    assert "must be" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/status"), ("POST", "/load"), ("POST", "/hold")])
async def test_every_route_wants_the_token(bench: Bench, method: str, path: str) -> None:
    assert (await bench.call(method, path, token="wrong")).status_code == 401
    assert bench.engine.calls == []


async def test_the_status_counts_users_in_flight_and_nobody_else(bench: Bench) -> None:
    async def in_flight() -> int:
        return int((await bench.call("GET", "/status")).json()["in_flight"])

    with bench.users.one(), bench.users.one():
        assert await in_flight() == 2
    assert await in_flight() == 0


async def test_the_cache_keeps_what_serves_and_the_one_to_go_back_to(bench: Bench) -> None:
    for version in (1, 2, 3):
        await bench.load(version)
    kept = {folder.name[:6] for folder in (bench.folder / "cache").glob("*-*")}
    assert kept == {"000002", "000003"}


async def test_a_copy_whose_removal_a_kill_ended_is_fetched_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path, ignore_errors: bool) -> None:
        for path in folder.glob("*.safetensors"):
            path.unlink()

    with monkeypatch.context() as during:
        during.setattr(cache.shutil, "rmtree", half)
        for version in (1, 2, 3):
            assert (await bench.load(version)).status_code == 200
    again = Loader(bench.store, bench.folder / "cache", 2, bench.store.read(3))
    assert (await again.load(1, bench.engine, bench.capture)).version == 1


async def test_adapters_are_loaded_merged(bench: Bench) -> None:
    bench.publish_adapters(4, base=1)
    bench.publish_adapters(5, base=4)
    for version in (2, 5):
        assert (await bench.load(version)).status_code == 200
    copy = bench.folder / "cache" / bench.engine.loaded[-1]
    assert load_file(copy / "model.safetensors")["w.weight"].tolist() == [[3.0, 3.0], [3.0, 3.0]]


async def test_an_adapters_base_is_kept_and_no_further_one_is_needed_even_to_start(bench: Bench) -> None:
    """Else each return to an older version would take the disk of one more."""
    bench.publish_adapters(4, base=1)
    for number in (5, 6):
        bench.publish_adapters(number, base=4)
        assert (await bench.load(number)).status_code == 200
    cache = bench.folder / "cache"
    assert {folder.name[:6] for folder in cache.glob("*-*")} == {"000004", "000005", "000006"}
    shutil.rmtree(bench.folder / "store")
    store = VersionStore(str(bench.folder / "store"), copies=cache)
    manifest = store.read(6)
    store.fetch(manifest, cache)
    again = Loader(store, cache, 2, manifest)
    assert (await again.load(5, bench.engine, bench.capture)).version == 5


async def test_another_tokenizer_of_an_adapters_base_never_pauses_the_engine(bench: Bench) -> None:
    bench.publish(4, torch.ones(2, 2), words='{"a": 1}')
    bench.publish_adapters(5, base=4)
    answer = await bench.load(5)
    assert answer.status_code == 409
    assert "version 5: its tokenizer.json must be that of version 0" in answer.json()["error"]
    assert bench.engine.calls == []


async def test_a_load_that_another_one_followed_is_not_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody rolls back while a promotion's weights are still on their way."""
    began, goes_on, asked = threading.Event(), threading.Event(), asyncio.Queue[int | None]()
    monkeypatch.setattr(bench.loader, "_fence", asked.put_nowait)

    def wait(_folder: Path, version: int) -> None:
        if version == 3:
            began.set()
            assert goes_on.wait(20.0)

    monkeypatch.setattr(cache, "check_finite", wait)
    with telling() as told:
        first = asyncio.create_task(bench.load(3))
        assert await asyncio.to_thread(began.wait, 20.0)
        others = [asyncio.create_task(bench.load(version)) for version in (2, 1)]
        for _ in range(3):
            await asked.get()
        goes_on.set()
        answers = await asyncio.gather(first, *others)
        assert [answer.status_code for answer in answers] == [409, 409, 200]
        assert "version 3 is not loaded: another load was asked for since" in answers[0].json()["error"]
        assert told.value(metrics.SWAPS_FAILED) == 0
    assert bench.engine.loaded == [Path(bench.store.read(1).folder).name]
    assert await held(bench) == [1, 3], "what was fetched is there for the next time"


async def test_loading_what_is_served_already_is_no_error(bench: Bench) -> None:
    assert (await bench.load(0)).status_code == 200


async def held(bench: Bench) -> list[int]:
    return list((await bench.call("GET", "/status")).json()["held"])


async def holding(bench: Bench, *versions: int) -> None:
    assert (await bench.call("POST", "/hold", json={"versions": versions})).status_code == 202
    assert bench.loader._holding is not None
    await bench.loader._holding


async def test_an_engine_tells_what_it_can_serve_without_the_store_and_can_then_serve_it(bench: Bench) -> None:
    assert (await bench.load(1)).status_code == 200
    assert await held(bench) == [1], "version 0 was never fetched here"
    assert (await bench.load(2)).status_code == 200
    assert await held(bench) == [1, 2]
    shutil.rmtree(bench.folder / "store")
    assert (await bench.load(1)).status_code == 200
    assert (await bench.load(3)).status_code == 409


async def test_a_version_is_verified_when_it_comes_and_not_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(cache, "check_finite", lambda _folder, version: seen.append(version))
    for version in (1, 2, 1, 2):
        await bench.load(version)
    assert seen == [1, 2]


async def test_what_shall_be_held_is_fetched_and_outlives_newer_versions(bench: Bench) -> None:
    await holding(bench, 0)
    assert await held(bench) == [0]
    assert bench.engine.calls == [], "holding swaps nothing"
    for version in (1, 2, 3):
        await bench.load(version)
    assert await held(bench) == [0, 2, 3]


async def test_what_cannot_be_held_is_not_said_to_be(bench: Bench) -> None:
    bench.publish(4, torch.tensor([float("nan")]))
    await holding(bench, 4, 9, 1)
    assert await held(bench) == [1]


async def test_a_kill_while_it_is_noted_what_serves_leaves_the_note_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await bench.load(1)).status_code == 200

    def cut(path: Path, _text: str) -> None:
        path.open("w").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        bench.loader._cache.remember(2)
    assert cache.remembered(bench.folder / "cache") == 1


async def test_a_load_that_an_older_writer_asks_for_is_not_done(bench: Bench) -> None:
    assert (await bench.call("POST", "/load", json={"version": 1, "epoch": 7})).status_code == 200
    late = await bench.call("POST", "/load", json={"version": 2, "epoch": 6})
    assert (late.status_code, "epoch 7 writes releases now" in late.json()["error"]) == (409, True)
    assert (await bench.call("GET", "/status")).json()["version"] == 1
    assert (await bench.load(2)).status_code == 200, "a person with the token is nobody's writer"

"""`onstream lineage`, on a store, a log and a lake as stages leave them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from intakes import SECRET, intake
from lake_traffic import Traffic

from infra.errors import StoreError
from ingest.lake.batch import Batch
from ingest.lake.content import Vault
from ingest.lake.manifest import Change
from ingest.lake.rows import rows_of
from ingest.lake.sealing import Keys
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lineage import command, reading
from ingest.lineage.core import Seen
from ingest.log import connect, fates
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import send
from ingest.log.topics import ALL, RELEASES, TRACES, VERSIONS
from ingest.privacy.keys import KeyStore
from ingest.privacy.pseudonyms import subject_of
from ingest.privacy.sealed_log import SealedLog
from ingest.records.events import Fate, FateKind, Release, ReleaseKind, Trace, TrialState, Version, session_key
from ingest.store.signing import SignatureState, Signer
from ingest.store.versions import VersionStore

MakeTrace = Callable[..., Trace]
ANNA = "a" * 32


class World:
    """A loop that trained version 1 of Anna's trace, promoted it, and has its child version 2 on trial."""

    def __init__(self, folder: Path, trace: Trace) -> None:
        self.folder, self.trace = folder, trace
        self.inner = InMemoryLog()
        self.inner.create(TopicSpec(topic.name, 1, None) for topic in ALL)
        self.keys = KeyStore(str(folder / "keys"), SECRET)
        self.log = SealedLog(self.inner, self.keys)
        self.store = VersionStore(str(folder / "store"), signer=Signer(ec.generate_private_key(ec.SECP256R1())))
        self.config = folder / "onstream.yaml"
        told = {"run_dir": str(folder), "model": {"path": "unused"}, "log": {"local": False}}
        self.config.write_text(json.dumps(told))
        (folder / "secret").write_text("0f" * 32)  # as SECRET
        first = self.version(0, None, ())
        second = self.version(1, first, (trace.trace_id,))
        self.version(2, second, (f"{session_key('t')}-1", f"{session_key('t')}-2"))
        for number, (stable, candidate, state) in enumerate(
            ((0, None, None), (0, 1, TrialState.CANARY), (1, 1, TrialState.PROMOTED), (1, 2, TrialState.CANARY))
        ):
            self.release(number, stable, candidate, state)
        fates.tell(self.log, [Fate(trace_ids=(trace.trace_id,), kind=FateKind.TRAINED, version=1, reason="", at=1.0)])

    def version(self, number: int, parent: Version | None, traces: tuple[str, ...]) -> Version:
        weights = self.folder / "weights"
        weights.mkdir(exist_ok=True)
        (weights / "model.safetensors").write_text(str(number))
        made_of = {"trace_ids": list(traces), "spec": "default/1", "num_turns": len(traces)}
        times = {"sessions_at.first": 10.0, "sessions_at.last": 20.0}
        made = self.store.publish(number, weights, parent, made_of, times if traces else {}, at=float(number))
        send(self.log, VERSIONS, "", made)
        return made

    def release(self, number: int, stable: int, candidate: int | None, state: TrialState | None) -> None:
        given = {
            "release": number,
            "epoch": 1,
            "kind": ReleaseKind.TRIAL if state else ReleaseKind.BOOTSTRAP,
            "stable": stable,
            "candidate": candidate,
            "state": state,
            "engines": {"stable-0": stable, "candidate-0": stable if candidate is None else candidate},
            "numbers": {"reward.log_e": 3.25} if state is TrialState.PROMOTED else {},
            "reason": f"reason {number}",
            "at": float(number),
        }
        send(self.log, RELEASES, "", Release.model_validate(given))

    def capture(self) -> None:
        """The trace as serving puts it on the log, sealed."""
        made = intake(keyring=self.keys)
        _, value, headers = made.close_trace(self.trace, made.key_for(self.trace.user, self.trace.tenant))
        self.inner.append(TRACES.name, session_key(self.trace.session_id), value, headers)

    def erase(self) -> None:
        self.keys.erase(subject_of(ANNA, ""))
        self.keys = KeyStore(str(self.folder / "keys"), SECRET)  # as a process has them that starts now
        self.log = SealedLog(self.inner, self.keys)


@pytest.fixture
def world(tmp_path: Path, make_trace: MakeTrace) -> World:
    return World(tmp_path, make_trace("s", 0, user=ANNA))


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command, to its exit status, what it printed, and what it complained of."""
    monkeypatch.setattr(connect, "connect", lambda _config, client_id: world.log)

    def run(*argv: str) -> tuple[int, str, str]:
        status = command.main([*argv, "--config", str(world.config)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_versions_story_is_told_from_its_first_parent_to_where_it_serves(run: Any) -> None:
    status, said, _ = run("1", "--json")
    told = json.loads(said)
    assert status == 0
    assert [parent["version"] for parent in told["parents"]] == [0] and told["ends_early"] == ""
    assert (told["num_turns"], told["num_sessions"], told["spec"]) == (1, 1, "default/1")
    assert (told["sessions_at"], told["feedback_at"]) == ([10.0, 20.0], None)
    assert [(one["release"], one["state"], one["author"]) for one in told["releases"]] == [
        (1, "canary", ""), (2, "promoted", "")
    ]  # fmt: skip
    assert told["releases"][1]["numbers"] == {"reward.log_e": 3.25}
    assert told["serving"] == {"version": 1, "role": "stable", "engines": ["stable-0"]}
    assert told["signature"]["state"] == SignatureState.UNCHECKED


def test_on_a_screen_stands_who_decided_why_and_on_what(run: Any) -> None:
    status, said, _ = run("1")
    assert status == 0
    for told in (
        "version 0",
        "reason 2",
        "the gate",
        "reward.log_e",
        "3.25",
        "stable on stable-0",
        "1 turn of 1 session",
    ):
        assert told in said


def test_of_adapters_stands_what_they_change(world: World, run: Any) -> None:
    _, whole, _ = run("0")
    assert re.search(r"weights +. whole", whole)
    folder = world.folder / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    world.store.publish(3, folder, world.store.read(1), {}, {}, 3.0, world.store.read(0))
    _, said, _ = run("3")
    assert re.search(r"weights +. adapters over version 0", said)
    assert json.loads(run("3", "--json")[1])["base"] == 0


def test_a_version_that_there_never_was_is_one_line(run: Any) -> None:
    assert run("7") == (1, "", "onstream: version 7: there is none; the store and the log have 0 to 2\n")


def test_a_version_removed_from_the_store_is_told_from_the_log(world: World, run: Any) -> None:
    (folder,) = (world.folder / "store" / "versions").glob("000000-*")
    (folder / "manifest.json").unlink()
    told = json.loads(run("1", "--json")[1])
    assert [(parent["version"], parent["signature"]) for parent in told["parents"]] == [(0, None)]


def test_an_altered_manifest_is_told_and_keeps_nothing_else_from_being_told(
    world: World, run: Any, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = ec.generate_private_key(ec.SECP256R1())
    public = tmp_path / "public.pem"
    encoding, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, spki))
    config = json.loads(world.config.read_text())
    config["store"] = {"signing": {"public_key_files": [str(public)], "required": True}}
    world.config.write_text(json.dumps(config))
    VersionStore(str(world.folder / "store"), signer=Signer(key)).sign(1)
    before = json.loads(run("1", "--json")[1])
    assert (before["signature"]["state"], before["exchanged"]) == (SignatureState.VALID, [])
    (manifest,) = (world.folder / "store" / "versions").glob("000001-*/manifest.json")
    manifest.write_text(manifest.read_text().replace("default/1", "default/2"))
    told = json.loads(run("1", "--json")[1])
    assert (told["signature"]["state"], told["serving"]["role"]) == (SignatureState.INVALID, "stable")
    assert told["exchanged"] == [1]
    assert "manifest.json was altered" in told["signature"]["told"]
    assert told["parents"][0]["signature"]["state"] == SignatureState.INVALID  # by another key


def test_a_trace_tells_what_it_trained_and_where_that_and_its_descendants_serve(world: World, run: Any) -> None:
    world.capture()
    status, said, _ = run("--trace", world.trace.trace_id, "--json")
    told = json.loads(said)
    assert (status, told["trained"], told["seen"]) == (0, [1], Seen.READABLE)
    assert told["serving"] == [
        {"version": 1, "role": "stable", "engines": ["stable-0"]},
        {"version": 2, "role": "candidate", "engines": ["candidate-0"]},
    ]
    assert "descends" in run("--trace", world.trace.trace_id)[1]


def test_a_completions_id_stands_for_its_trace(world: World, run: Any, make_trace: MakeTrace) -> None:
    name = f"{session_key('s')}-{'0' * 32}"
    fates.tell(world.log, [Fate(trace_ids=(name,), kind=FateKind.HELD_OUT, reason="its session is held out", at=1.0)])
    status, said, _ = run("--trace", f"chatcmpl-{name}")
    assert (status, "held out, its session is held out" in said) == (0, True)


def test_an_erased_trace_says_so_and_still_what_it_trained(world: World, run: Any) -> None:
    world.capture()
    world.erase()
    told = json.loads(run("--trace", world.trace.trace_id, "--json")[1])
    assert (told["seen"], told["trained"]) == (Seen.ERASED, [1])
    assert "Whom it is of was erased" in told["told"]


def test_a_trace_that_nothing_knows_says_so(run: Any) -> None:
    status, said, _ = run("--trace", f"{'0' * 16}-none")
    assert (status, "Nothing here knows it" in said) == (1, True)


def test_what_is_no_traces_id_is_refused(run: Any) -> None:
    status, _, complaint = run("--trace", "conversation-42")
    assert (status, "--trace: must be a trace's id" in complaint) == (1, True)


@pytest.mark.parametrize("is_erased", [False, True])
def test_what_the_log_keeps_no_longer_is_told_from_the_lake(world: World, run: Any, is_erased: bool) -> None:
    (played,) = Traffic(seed=2).sessions(1)
    trajectory, trace_id = played.trajectory, played.trajectory.turns[0].trace_id
    lake, batch = Lake(Storage(str(world.folder / "lake"))), Batch()
    kept = Fate(trace_ids=(trace_id,), kind=FateKind.TRAINED, version=1, reason="then", at=1.0)
    subject = world.keys.key_for(subject_of(ANNA, "")).name
    for offset, record in enumerate((trajectory, kept)):
        batch.add(tuple(rows_of(record, 0, offset, Vault(Keys(world.keys)), subject)))
    lake.commit(Change(batch.write(lake)))
    if is_erased:
        world.erase()
    told = json.loads(run("--trace", trace_id, "--json")[1])
    assert (told["fate"]["reason"], told["trained"]) == ("then", [1])
    assert told["seen"] == (Seen.ERASED if is_erased else Seen.READABLE)


def test_a_store_that_is_damaged_is_named(world: World) -> None:
    (manifest,) = (world.folder / "store" / "versions").glob("000001-*/manifest.json")
    manifest.write_text("{}")
    with pytest.raises(StoreError, match=r"version 1: manifest .* is unreadable"):
        reading.ancestry(2, world.log, world.store)

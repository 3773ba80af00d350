"""`onstream erase`, on a log, keys, a lake and a store as stages leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intakes import SECRET, intake

from ingest.erase import command
from ingest.log import connect
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import send
from ingest.log.topics import ALL, RELEASES, TRACES
from ingest.privacy.keys import KeyStore
from ingest.privacy.pseudonyms import user_pseudonym
from ingest.records.events import Release, ReleaseKind, Trace, TrialState, session_key
from ingest.store.versions import VersionStore

MakeTrace = Callable[..., Trace]
ANNA = user_pseudonym(SECRET, "default", "anna")


class World:
    """Anna's trace on the log; version 1, on trial, was trained on it, and version 2 descends from that."""

    def __init__(self, folder: Path, trace: Trace) -> None:
        self.folder, self.trace, self.log = folder, trace, InMemoryLog()
        self.log.create(TopicSpec(topic.name, 1, None) for topic in ALL)
        (folder / "secret").write_text("0f" * 32)  # as SECRET
        self.config = folder / "onstream.yaml"
        told = {"run_dir": str(folder), "model": {"path": "unused"}, "log": {"local": False}}
        self.config.write_text(json.dumps(told))
        keys = KeyStore(str(folder / "keys"), SECRET)
        made = intake(keyring=keys)
        _, value, headers = made.close_trace(trace, keys.key_for(f"user-{ANNA}"))
        self.log.append(TRACES.name, session_key(trace.session_id), value, headers)
        self.store, parent = VersionStore(str(folder / "store")), None
        (weights := folder / "weights").mkdir()
        for number, traces in enumerate(((), (trace.trace_id,), ())):
            (weights / "model.safetensors").write_text(str(number))
            parent = self.store.publish(number, weights, parent, {"trace_ids": list(traces)}, {}, at=0.0)
        told = {"epoch": 1, "stable": 0, "reason": "", "at": 0.0, "engines": {"stable-0": 0, "candidate-0": 1}}
        bootstrap = Release.model_validate(told | {"release": 0, "kind": ReleaseKind.BOOTSTRAP})
        trial = {"release": 1, "kind": ReleaseKind.TRIAL, "candidate": 1, "state": TrialState.CANARY}
        for one in (bootstrap, Release.model_validate(told | trial)):
            send(self.log, RELEASES, "", one)


@pytest.fixture
def world(tmp_path: Path, make_trace: MakeTrace) -> World:
    return World(tmp_path, make_trace("s", 0, user=ANNA))


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command, to its exit status, what it printed, and what it complained of."""
    monkeypatch.setattr(connect, "as_it_lies", lambda _config, client_id: world.log)

    def run(*argv: str) -> tuple[int, str, str]:
        status = command.main([*argv, "--config", str(world.config)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_json_has_every_trace_and_every_version_with_what_it_is_now(world: World, run: Any) -> None:
    status, said, _ = run("--user", "anna", "--json")
    assert status == 0
    assert json.loads(said) == {
        "user": ANNA,
        "keys": 1,
        "sessions": 1,
        "traces": [world.trace.trace_id],
        "by_fate": {"no fate yet": 1},
        "versions": [
            {
                "version": 1,
                "role": "candidate",
                "engines": ["candidate-0"],
                "state": "on trial",
                "trained_on": [world.trace.trace_id],
                "is_stored": True,
            },
            {
                "version": 2,
                "role": "not served",
                "engines": [],
                "state": "no trial yet",
                "trained_on": [],
                "is_stored": True,
            },
        ],
        "unread": [],
    }


def test_on_a_screen_stand_the_versions_that_were_trained_and_how_many_more_descend(run: Any) -> None:
    status, said, _ = run("--user", "anna")
    assert status == 0
    for told in (
        "trained on 1 of them",
        "on trial",
        "candidate on candidate-0",
        "Not shown: 1 that descend",
        "erase again once",
    ):
        assert told in said


def test_a_manifest_that_cannot_be_read_is_printed_and_makes_the_status_1(world: World, run: Any) -> None:
    (manifest,) = (world.folder / "store" / "versions").glob("000001-*/manifest.json")
    manifest.write_text("{}")
    status, said, _ = run("--user", "anna")
    assert status == 1
    assert "user " + ANNA + " is erased" in said and "Not read: version 1: manifest" in said
    status, said, _ = run("--pseudonym", ANNA, "--json")
    assert status == 1 and json.loads(said)["unread"][0].startswith("version 1: manifest")


@pytest.mark.parametrize(
    ("who", "rule"),
    [
        (("--user", ""), "--user: must name somebody"),
        (("--pseudonym", ""), "--pseudonym: must be 32 hex digits"),
        (("--pseudonym", "anna"), "--pseudonym: must be 32 hex digits"),
        (("--user", "anna", "--tenant", "nobody"), "--tenant: must be one of the configuration's"),
    ],
)
def test_what_names_nobody_is_refused_and_not_said_to_be_erased(run: Any, who: tuple[str, ...], rule: str) -> None:
    status, said, complaint = run(*who)
    assert (status, said) == (1, "")
    assert rule in complaint

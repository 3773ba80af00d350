"""From the store, the log and the lake to what people see."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.config import AlarmsConfig
from infra.errors import ConfigError
from ingest.lake.batch import Batch
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Change
from ingest.lake.rows import rows_of
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.log import topics
from ingest.log.reader import replay
from ingest.records.events import Fate, FateKind, TrialState
from ingest.store.releases import End
from trainer.eligibility import Reason
from trainer.report import command, page, reading, show
from trainer.report.core import Ended, Report, VersionTold, report

World = Any


def told(*versions: VersionTold, since: dict[str, int] | None = None) -> Report:
    return Report(versions, sum(one.used for one in versions), since or {}, "the lake")


def version(number: int, end: End = End.PROMOTED, used: int = 10, **fields: Any) -> VersionTold:
    metrics = {"mean_reward": 0.5, "kl": 0.01, "mismatch_k1": 0.005, "ess": 0.9, "entropy": 1.0, "staleness": 0.0}
    parent = number - 1 if number else None
    return VersionTold(number, parent, 3600.0 * number, end, used, fields.pop("ended", {}), metrics | fields)


@pytest.fixture
def lived(world: World) -> World:
    """Versions 1 and 3 were promoted, version 2 rejected; a turn was held out, one failed, one was version 2's."""
    world.bootstrap()
    trainer = world.start()
    trainer.tick()
    world.fill("a")
    world.reward("out", [1.0], held_out=True)
    trainer.tick()
    world.time += 10.0
    world.decide(1, TrialState.PROMOTED, stable=1)
    trainer.tick()
    world.reward("bad", [1.0], version=1, turn_changes={0: {"status": 500}})
    world.fill("b", version=1)
    trainer.tick()
    trainer.tick()
    world.time += 10.0
    world.decide(2, TrialState.REJECTED, stable=1)
    world.reward("rejected", [1.0], version=2)
    world.fill("c", version=1)
    trainer.tick()
    trainer.tick()
    world.time += 10.0
    world.decide(3, TrialState.PROMOTED, stable=3)
    trainer.tick()
    trainer.close()
    return world


def test_a_report_says_what_became_of_versions_and_of_the_turns_that_did_not_train(lived: World) -> None:
    found = reading.read(lived.config, lived.log)
    assert found.source.startswith("the log")
    ends = {one.version: one.end for one in found.versions}
    assert ends == {0: End.FIRST, 1: End.PROMOTED, 2: End.REJECTED, 3: End.PROMOTED}
    assert [one.used for one in found.versions] == [0, 4, 4, 4] and found.num_used == 12
    assert found.ended == {Reason.HELD_OUT: 1, Reason.STATUS: 1, Reason.REJECTED_WEIGHTS: 1}
    assert found.num_wasted == 1
    assert found.versions[1].metrics["staleness"] == 0.0 and found.versions[1].settings


def test_the_lake_and_the_log_give_the_same_counts(lived: World) -> None:
    by_log = reading.read(lived.config, lived.log)
    batch = Batch()
    for number, fate in enumerate(replay(lived.log, topics.FATES, Fate)):
        batch.add(tuple(rows_of(fate, 0, number, Vault(NoSeal()))))
    lake = Lake(Storage(lived.config.ingest.lake.url))
    assert lake.commit(Change(batch.write(lake))) is not None
    by_lake = reading.read(lived.config, lived.log)
    assert by_lake.source == "the lake"
    assert (by_lake.versions, by_lake.since) == (by_log.versions, by_log.since)


def test_what_ended_after_the_last_version_is_not_put_on_it(lived: World) -> None:
    versions = [lived.store.read(number) for number in lived.store.versions()]
    at = [one.created_at for one in versions]
    stale = [Ended(when, FateKind.REFUSED, Reason.STALE.value, num) for when, num in ((at[2], 3), (at[-1] + 1.0, 5))]
    found = report(versions, reading.releases.read(lived.log), stale, "")
    assert found.since == {Reason.STALE: 5} and [one.num_wasted for one in found.versions] == [0, 0, 3, 0]


def test_a_turn_that_trained_two_versions_is_one_turn(lived: World) -> None:
    one = lived.store.read(1)
    again = one.model_copy(update={"version": 9})
    assert report([one, again], reading.releases.read(lived.log), [], "").num_used == 4


def test_the_tables_fit_a_pipe_and_tell_without_colour(capsys: Any, lived: World) -> None:
    found = reading.read(lived.config, lived.log)
    assert command.tell(lived.config, found, argparse.Namespace(html=None, json=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 versions; of 13 turns that could train 12 did, 92.3%")
    assert max(map(len, lines)) <= 160 and "\x1b" not in "".join(lines)
    assert any("rejected" in line and line.split()[0] == "2" for line in lines)


def test_json_has_every_number(capsys: Any, lived: World) -> None:
    found = reading.read(lived.config, lived.log)
    assert command.tell(lived.config, found, argparse.Namespace(html=None, json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["end"] for one in told["versions"]] == ["first", "promoted", "rejected", "promoted"]
    assert sum(told["since"].values()) + sum(sum(one["ended"].values()) for one in told["versions"]) == 3


def test_a_page_has_a_plot_for_each_metric_that_is_there_and_a_mark_for_each_version() -> None:
    html = page.report(told(version(0, End.FIRST), version(1), version(2, End.REJECTED)), AlarmsConfig())
    assert [re.sub("<.*", "", one).strip() for one in html.split("<figcaption>")[1:]] == [
        "Reward", "KL", "Entropy", "Effective sample size", "Staleness", "Turns",
    ]  # fmt: skip
    assert html.count("version 2, rejected: ") == 5
    reward = html.split("<figure>")[1]
    assert reward.count('class="good"') == 2 and reward.count('class="cross"') == 2


def test_bounds_stand_in_their_plots_unless_they_are_off() -> None:
    shown = page.report(told(version(1)), AlarmsConfig())
    assert "max_kl 0.2" in shown and "min_ess 0.3" in shown
    assert "max_kl" not in page.report(told(version(1)), AlarmsConfig(max_kl=None))


def test_used_turns_are_told_from_wasted_ones_by_hatching() -> None:
    html = page.report(told(version(1, ended={Reason.STALE.value: 4, Reason.SIDE.value: 7})), AlarmsConfig())
    assert 'class="used"' in html and 'class="wasted"' in html and 'id="hatched"' in html
    assert "used 10, wasted 4 (stale 4; side turn 7)" in html


@pytest.mark.parametrize("versions", [(version(0, End.FIRST, used=0),), tuple(version(n) for n in range(300))])
def test_one_version_and_hundreds_are_a_page(versions: tuple[VersionTold, ...]) -> None:
    html = page.report(told(*versions), AlarmsConfig())
    assert html.count('text-anchor="middle">version</text>') >= 1 or "No turn has ended yet" in html
    assert "nan" not in html and "http" not in html


def test_a_page_that_cannot_be_written_is_told_by_its_flag(lived: World, tmp_path: Path) -> None:
    found = told(version(1))
    with pytest.raises(ConfigError, match="--html"):
        command.tell(lived.config, found, argparse.Namespace(html=str(tmp_path / "none" / "x"), json=False))


def test_wasted_reasons_come_first() -> None:
    found = show.reasons(told(version(1, ended={Reason.SIDE.value: 70, Reason.STALE.value: 4})))
    assert found == [("stale", "wasted", "4"), ("side turn", "unfit", "70")]

"""Pages of turns, filters, and what is read for them."""

import argparse
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_traffic import Played, Traffic

from infra.errors import ConfigError, LakeError
from ingest.lake import compaction, filters, listing
from ingest.lake.content import Content
from ingest.lake.filters import Filters
from ingest.lake.manifest import Change, DataFile, Table
from ingest.lake.reading import Reading, _portions
from ingest.lake.table import Lake
from ingest.records.events import FateKind, Turn, TurnKind

World = Any
NOW = 1_764_000_000.0


@pytest.fixture
def played() -> list[Played]:
    return list(Traffic(seed=5, gap_s=3_000.0).sessions(60))  # two days of them


@pytest.fixture
def filled(world: World, played: list[Played]) -> World:
    for first in range(5):  # sessions of all times in each commit; some are told twice
        some = played[first::5]
        world.put(*(one.trajectory for one in some), *(one.reward for one in some))
        world.put(some[0].trajectory, *(fate for one in some for fate in one.fates))
    return world


def newest(played: list[Played]) -> list[Turn]:
    turns = [turn for one in played for turn in one.trajectory.turns]
    return sorted(turns, key=lambda turn: turn.at, reverse=True)


def ids(page: listing.Page) -> list[str]:
    return page.turns["trace_id"].to_list()


def test_pages_have_every_turn_once_and_the_newest_first(filled: World, played: list[Played]) -> None:
    expected, found, number = [turn.trace_id for turn in newest(played)], list[str](), 1
    while True:
        page = listing.page(filled.reading(), Filters(), 17, number)
        found += ids(page)
        if not page.has_more:
            break
        number += 1
    assert found == expected
    assert ids(listing.page(filled.reading(), Filters(), 17, number + 1)) == []


def test_pages_are_the_same_after_files_are_joined(filled: World) -> None:
    before = [ids(listing.page(filled.reading(), Filters(), 50, number)) for number in (1, 2)]
    for job in compaction.plan(filled.lake.refresh().files.values(), NOW):
        compaction.join(filled.lake, job)
    assert [ids(listing.page(filled.reading(), Filters(), 50, number)) for number in (1, 2)] == before


def test_a_turn_has_its_own_reward_and_fate(filled: World, played: list[Played]) -> None:
    rewards = {turn.trace_id: turn.value for one in played for turn in one.reward.turns}
    fates = {name: (fate.kind.value, fate.version) for one in played for fate in one.fates for name in fate.trace_ids}
    page = listing.page(filled.reading(), Filters(), 1000)
    for row in page.turns.to_dicts():
        assert row["reward"] == rewards[row["trace_id"]]
        assert (row["fate"], row["fate_version"]) == fates[row["trace_id"]]


def test_of_rewards_under_several_specs_the_newest_counts(world: World, played: list[Played]) -> None:
    first = played[0].reward
    turns = tuple(turn.model_copy(update={"value": 0.123}) for turn in first.turns)
    newer = first.model_copy(update={"reward_id": "r2", "spec": "other@1", "turns": turns, "at": first.at + 1.0})
    world.put(played[0].trajectory, newer, first)
    assert set(listing.page(world.reading(), Filters(), 50).turns["reward"]) == {0.123}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (Filters(tenant="tenant-1"), lambda one, turn: one.trajectory.tenant == "tenant-1"),
        (Filters(user="nobody"), lambda one, turn: False),
        (Filters(since=1_050_000.0, until=1_090_000.0), lambda one, turn: 1_050_000.0 <= turn.at < 1_090_000.0),
        (Filters(version=0), lambda one, turn: 0 in turn.versions),
        (Filters(version=9), lambda one, turn: False),
        (Filters(kind=TurnKind.SIDE), lambda one, turn: False),
        (Filters(fate=FateKind.HELD_OUT), lambda one, turn: one.trajectory.held_out),
        (Filters(min_reward=0.5, max_reward=0.75), lambda one, turn: 0.5 <= value_of(one, turn) <= 0.75),
        (Filters(text="changelog", tenant="tenant-0"), lambda one, turn: says(one, turn, "changelog", "tenant-0")),
    ],
)
def test_a_filter_leaves_exactly_what_meets_it(
    filled: World, played: list[Played], given: Filters, wanted: Any
) -> None:
    expected = {turn.trace_id for one in played for turn in one.trajectory.turns if wanted(one, turn)}
    page = listing.page(filled.reading(), given, 1000)
    assert set(ids(page)) == expected
    assert page.turns["at"].is_sorted(descending=True)


def value_of(one: Played, turn: Turn) -> float:
    return next(reward.value or 0.0 for reward in one.reward.turns if reward.trace_id == turn.trace_id)


def says(one: Played, turn: Turn, text: str, tenant: str) -> bool:
    told = " ".join([turn.reply, *(message.text for message in turn.messages), *(c.arguments for c in turn.tool_calls)])
    return one.trajectory.tenant == tenant and text in told.casefold()


def test_the_first_page_opens_only_files_of_its_own_time(filled: World) -> None:
    opened = list[DataFile]()

    class Watched(Lake):
        def scan(self, table: Table, files: Any) -> pl.LazyFrame:
            opened.extend(file for file in files if file.table is Table.TURNS)
            return super().scan(table, files)

    for job in compaction.plan(filled.lake.refresh().files.values(), NOW):
        compaction.join(filled.lake, job)
    filled.lake = Watched(filled.lake.storage, filled.clock)
    reading = Reading(filled.lake, filled.vault)
    days = {file.day for file in reading.files(Table.TURNS)}
    assert len(days) == 3
    page = listing.page(reading, Filters(since=1_130_000.0), 3)
    assert len(ids(page)) == 3
    assert {file.day for file in opened} == {max(days)}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(1, 30_000)), min_size=1, max_size=12))
def test_portions_are_all_files_in_their_order(spans: list[tuple[int, int, int]]) -> None:
    files = [DataFile(str(n), rows, 1, begin, begin + length) for n, (begin, length, rows) in enumerate(spans)]
    portions = list(_portions(files))
    assert [file for part, _ in portions for file in part] == files
    assert [following for _, following in portions] == [*(part[0] for part, _ in portions[1:]), None]


@pytest.mark.parametrize("newest_first", [True, False])
def test_runs_are_in_the_order_of_time_whatever_files_overlap(
    filled: World, played: list[Played], newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.lake.reading._STEP_ROWS", 1)
    reading = filled.reading()
    runs = list(reading.runs(Table.TURNS, reading.files(Table.TURNS), ("at", "trace_id"), newest_first=newest_first))
    assert len(runs) > 10
    found = pl.concat(runs)
    assert found["trace_id"].to_list() == [t.trace_id for t in newest(played)][:: 1 if newest_first else -1]


def test_text_is_looked_for_wherever_someone_wrote() -> None:
    call = {"name": "grep", "arguments": '{"for": "Needle"}', "call_id": ""}
    bare: dict[str, Any] = {"messages": [], "reply": "", "tool_calls": []}
    assert listing.says(Content(bare | {"reply": "a Needle"}), "needle")
    assert listing.says(Content(bare | {"tool_calls": [call]}), "needle")
    assert listing.says(Content(bare | {"messages": [{"text": "", "tool_calls": [call]}]}), "needle")
    assert listing.says(Content(bare | {"messages": [{"text": "needle"}]}), "needle")
    assert not listing.says(Content(bare | {"reply": "hay"}), "needle")
    assert not listing.says(None, "needle")


def read(*flags: str) -> Filters:
    parser = argparse.ArgumentParser()
    filters.add(parser)
    return filters.read(parser.parse_args(flags), NOW)


def test_ages_count_back_from_now_and_days_begin_here() -> None:
    assert read("--since", "90m").since == NOW - 5400.0
    assert read("--since", "2w").since == NOW - 14 * 86_400.0
    assert read("--until", "2025-11-24T14:00:00+00:00").until == 1_763_992_800.0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--since", "yesterday"], r"--since: must be a date .* got 'yesterday'"),
        (["--until", "25.11.2026"], r"--until: must be a date"),
        (["--since", "1d", "--until", "2d"], "--since must be before --until, got 1d and 2d"),
        (["--min-reward", "1.5"], r"--min-reward: rewards lie in \[0, 1\], got 1.5"),
        (
            ["--min-reward", "0.5", "--max-reward", "0.2"],
            "--min-reward must not be above --max-reward, got 0.5 and 0.2",
        ),
    ],
)
def test_filters_that_no_turn_can_meet_are_refused_with_the_reason(flags: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(*flags)


def test_an_empty_lake_says_so(world: World) -> None:
    with pytest.raises(LakeError, match=r"nothing was written to .*/lake yet"):
        world.reading()


def test_a_lake_without_turns_has_an_empty_page(world: World) -> None:
    world.lake.commit(Change((world.fates("a"),)))
    page = listing.page(world.reading(), Filters(fate=FateKind.TRAINED), 5)
    assert (page.turns.height, page.has_more) == (0, False)

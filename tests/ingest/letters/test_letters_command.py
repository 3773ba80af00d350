"""`onstream dlq` on the in-memory log: what is listed, shown, put back and refused."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from infra.config import Config, ModelConfig
from ingest.letters import choose, command, show
from ingest.letters.choose import SOURCES
from ingest.log import letters, redrive
from ingest.log.claims import ClaimLog, Claims
from ingest.log.letters import Failure
from ingest.log.memory import InMemoryLog
from ingest.log.places import Place
from ingest.log.protocol import Message
from ingest.log.reader import send
from ingest.log.topics import FEEDBACK, TRACES, dead_letters, late_letters, parked
from ingest.records import codec, prefixes
from ingest.records.events import Feedback, Trace, key_of
from ingest.records.prefixes import Outline

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]

GROUP = "ingest"
DLQ = dead_letters(FEEDBACK.name, GROUP)
CONFIG = Config(model=ModelConfig(path="unused"))


def leave(log: InMemoryLog, offset: int, value: bytes, headers: dict[str, str], failure: Failure, told: str) -> None:
    message = Message(FEEDBACK.name, 0, offset, f"key {offset}", value, headers)
    if failure is Failure.NEWER:
        letters.park(log, GROUP, message, told)
    else:
        letters.bury(log, GROUP, message, failure, told)


def leave_feedback(log: InMemoryLog, offset: int, feedback: Feedback, **headers: str) -> None:
    value, schema = codec.encode(feedback)
    told = f"feedback {feedback.feedback_id}: nothing is known of session 's'"
    leave(log, offset, value, schema | headers, Failure.UNCLAIMED, told)


@pytest.fixture
def log(make_feedback: MakeFeedback) -> InMemoryLog:
    """Three of feedback about session `s`, one that is broken, one of a newer version."""
    made = InMemoryLog()
    for offset in range(3):
        leave_feedback(made, offset, make_feedback(offset, session_id="s", comment="secret"))
    leave(made, 3, b"\xff\x00 broken", {"schema": "feedback/1"}, Failure.UNREADABLE, "feedback/1: record: Invalid JSON")
    leave(made, 4, b"{}", {"schema": "feedback/99"}, Failure.NEWER, "feedback: got 99; upgrade the reader")
    return made


@pytest.fixture
def run(log: InMemoryLog, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs the command line on the log; gives its status and all that it said."""

    def ran(*argv: str) -> tuple[int, str]:
        args = command._parser().parse_args(argv)
        status = args.do(log, args, CONFIG)
        said = capsys.readouterr()
        return status, said.out + said.err

    yield ran


def lay(log: InMemoryLog, trace: Trace) -> None:
    send(log, TRACES, key_of(session_id=trace.session_id, trace_id=None), trace)


def put_back(log: InMemoryLog) -> list[str]:
    return [f"{redrive.origin_of(message.headers)}" for message in log.replay(FEEDBACK.name)]


# -- list


def test_letters_are_listed_by_topic_failure_and_error_without_their_ids(log: InMemoryLog, run: Any) -> None:
    status, said = run("list", "--json")
    heaps = json.loads(said)["letters"]
    assert status == 0
    assert [(heap["topic"], heap["group"], heap["failure"], heap["letters"]) for heap in heaps] == [
        ("feedback", "ingest", "unclaimed", 3),
        ("feedback", "ingest", "unreadable", 1),
        ("feedback", "ingest", "newer", 1),
    ]
    assert heaps[0]["error"] == "feedback …: nothing is known of session '…'"
    assert heaps[0]["newest_place"] == f"{DLQ}/0@2"


def test_a_letter_that_was_put_back_no_longer_waits_and_one_that_came_again_is_told(
    log: InMemoryLog, run: Any, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    lay(log, make_trace("s"))
    leave_feedback(log, 9, make_feedback(9, session_id="s"), redriven="1")
    run("redrive", "--place", f"{DLQ}/0@1")
    heap = json.loads(run("list", "--json")[1])["letters"][0]
    assert (heap["letters"], heap["put_back"], heap["came_again"]) == (3, 1, 1)


@pytest.mark.parametrize("width", [80, 117, 118, 160])
def test_a_listing_fits_the_terminal_and_leaves_nothing_out(log: InMemoryLog, width: int) -> None:
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(show.listing(show.heaps(log), now=0.0, width=width))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in captured.get().replace("feedback …:", "").replace("'…'", "")
    for expected in ("unclaimed", "unreadable", "newer", f"{DLQ}/0@2"):
        assert expected in captured.get()


def test_without_letters_the_topics_that_were_looked_at_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command._list(InMemoryLog(), Namespace(json=False), CONFIG) == 0
    said = capsys.readouterr().out
    assert said.startswith("no letters")
    assert all(source.name in said for source in SOURCES)


def test_what_came_late_is_listed_and_shown_and_never_put_back(
    log: InMemoryLog, run: Any, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    lay(log, make_trace("s"))
    message = Message(FEEDBACK.name, 0, 8, "key", *codec.encode(make_feedback(8, session_id="s")))
    letters.write(log, late_letters(FEEDBACK.name, GROUP), message, Failure.LATE, "late")
    heap = json.loads(run("list", "--json")[1])["letters"][-1]
    assert (heap["topic"], heap["group"], heap["failure"], heap["letters"]) == ("feedback", "ingest", "late", 1)
    assert "it is a note" in run("show", "feedback/0@8")[1]
    status, said = run("redrive", "--place", "feedback/0@8", "--force")
    assert (status, put_back(log)) == (1, []) and "refused 1: it is a note" in said
    run("redrive", "--force")
    assert "feedback/0@8" not in put_back(log)


# -- show


@pytest.mark.parametrize("asked", [f"{DLQ}/0@0", "feedback/0@0", "dlq/0@0"])
def test_a_letter_is_found_by_its_place_by_where_it_lay_and_by_a_part_that_only_it_has(run: Any, asked: str) -> None:
    status, said = run("show", asked)
    assert status == 0
    for expected in (
        f"{DLQ}/0@0",
        "feedback/0@0, read by group ingest",
        "unclaimed",
        "ingest.horizon_s",
        "nothing is known of session 's'",
        "schema: feedback/2",
        "feedback_id: f0",
        "there is still no trace of its session",
    ):
        assert expected in said


def test_content_is_shown_to_who_asks_for_it_only(run: Any) -> None:
    assert "secret" not in run("show", f"{DLQ}/0@0")[1]
    assert '"comment": "secret"' in run("show", f"{DLQ}/0@0", "--content")[1]
    assert "ff 00" in run("show", f"{DLQ}/0@3", "--content")[1]


def test_a_part_of_several_places_names_them_and_shows_nothing(run: Any) -> None:
    status, said = run("show", "ingest.dlq")
    assert (status, said) == (
        1,
        f"onstream: dlq: 'ingest.dlq' is part of 4 places: {DLQ}/0@0, {DLQ}/0@1, {DLQ}/0@2, ...\n",
    )


@pytest.mark.parametrize("asked", [f"{DLQ}/0@77", "nowhere/0@0", "feedback/1@0", "?"])
def test_a_letter_that_is_not_there_is_said_so(run: Any, asked: str) -> None:
    status, said = run("show", asked)
    assert (status, said.count("\n")) == (1, 1)
    assert f"no letter lies, or first lay, at '{asked}'" in said


def test_what_lies_in_a_letter_gives_a_terminal_no_orders(log: InMemoryLog, run: Any) -> None:
    leave(log, 5, b'{"a": "\\u001b[2J"}', {"schema": "x\x1b[2J"}, Failure.UNREADABLE, "bad \x1b[2J [red]name[/]")
    said = run("show", "feedback/0@5", "--content")[1]
    assert "\x1b" not in said + run("list")[1] + run("redrive", "--dry-run")[1]
    assert "[red]name[/]" in said


# -- redrive


def test_feedback_is_put_back_once_its_session_is_there_and_refused_before(
    log: InMemoryLog, run: Any, make_trace: MakeTrace
) -> None:
    status, said = run("redrive", "--failure", "unclaimed")
    assert (status, put_back(log)) == (1, [])
    assert f"refused 3: would fail again: there is still no trace of its session\n  {DLQ}/0@0, {DLQ}/0@1" in said
    lay(log, make_trace("s"))
    status, said = run("redrive", "--failure", "unclaimed")
    assert (status, said) == (0, f"put back 3 on feedback, of {DLQ}\n")
    assert put_back(log) == ["feedback/0@0", "feedback/0@1", "feedback/0@2"]
    assert run("redrive", "--failure", "unclaimed") == (0, "3 had been put back before\n")
    assert len(put_back(log)) == 3


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    log: InMemoryLog, run: Any, make_trace: MakeTrace
) -> None:
    lay(log, make_trace("s"))
    status, said = run("redrive", "--dry-run")
    assert status == 1
    assert f"would put back 3 on feedback, of {DLQ}\n" in said
    assert put_back(log) == []
    assert redrive.notes(log, DLQ) == {}


def test_what_cannot_be_read_still_is_refused_unless_forced(log: InMemoryLog, run: Any) -> None:
    status, said = run("redrive", "--failure", "unreadable")
    assert (status, put_back(log)) == (1, [])
    assert "refused 1: would fail again: feedback/1: record: Invalid JSON" in said
    assert run("redrive", "--failure", "unreadable", "--force")[0] == 0
    assert put_back(log) == ["feedback/0@3"]


@pytest.fixture
def line(make_trace: MakeTrace) -> list[Trace]:
    """Three traces, as capture stores them, each of which leans on the one before."""
    said: list[dict[str, str]] = []
    whole: list[Trace] = []
    for n in range(3):
        said = [*said, {"role": "user", "content": f"question {n}"}]
        prompt = (*(whole[-1].prompt_token_ids + whole[-1].token_ids if whole else (1,)), 10 + n)
        whole.append(make_trace(n=n, at=5.0 * n, prompt=prompt, reply=(20 + n, 30 + n), messages=said))
        said = [*said, {"role": "assistant", "content": f"answer {n}"}]
    stored = [whole[0]]
    for before, trace in pairwise(whole):
        elder, digest = Outline.of(before), prefixes.digest(codec.encode(stored[-1])[0])
        outline = Outline.of(trace)
        stored.append(prefixes.cut(trace, outline, elder, digest, elder.num_tokens_in(outline.prompt)))
    return stored


def orphan(log: InMemoryLog, trace: Trace) -> None:
    """Lay a trace where it belongs, and among the letters, as ingest leaves it without what it leans on."""
    lay(log, trace)
    *_, message = log.replay(TRACES.name)
    letters.bury(log, GROUP, message, Failure.ORPHANED, f"trace {trace.trace_id}: leans on what is not on the log")


def test_orphans_are_put_back_once_all_that_they_lean_on_is_there_and_refused_before(
    log: InMemoryLog, run: Any, line: list[Trace]
) -> None:
    for trace in line[1:]:
        orphan(log, trace)
    lay(log, line[0].model_copy(update={"reply_text": "not what it was"}))
    status, said = run("redrive", "--failure", "orphaned")
    assert status == 1
    assert "refused 2: would fail again: what its prefix leans on is still not on the log" in said
    assert "what its prefix leans on" in run("show", f"{dead_letters(TRACES.name, GROUP)}/0@0")[1]
    lay(log, line[0])
    status, said = run("redrive", "--failure", "orphaned")
    assert (status, said) == (0, f"put back 2 on traces, of {dead_letters(TRACES.name, GROUP)}\n")
    back = [codec.decode(message.value, message.headers, Trace) for message in log.replay(TRACES.name)]
    assert [trace.trace_id for trace in back[-2:]] == [trace.trace_id for trace in line[1:]]


@pytest.mark.parametrize("failure", Failure)
def test_each_failure_has_its_rule_and_all_but_notes_can_be_chosen(failure: Failure) -> None:
    assert failure in show._RULES
    assert (choose.label(failure) in command.FAILURES) is (failure is not Failure.LATE)


def test_what_is_parked_is_refused_by_a_command_that_is_too_old_for_it(log: InMemoryLog, run: Any) -> None:
    status, said = run("redrive", "--failure", "newer")
    assert (status, put_back(log)) == (1, [])
    assert "upgrade the reader" in said


def test_what_is_parked_is_put_back_by_a_command_that_knows_it(
    log: InMemoryLog, run: Any, make_feedback: MakeFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, _ = codec.encode(make_feedback(5, session_id="s"))
    newer = Feedback.VERSION + 1
    leave(log, 5, value, {"schema": f"feedback/{newer}"}, Failure.NEWER, "upgrade the reader")
    monkeypatch.setattr(Feedback, "VERSION", newer)
    assert run("redrive", "--place", "feedback/0@5")[1] == f"put back 1 on feedback, of {parked('feedback', GROUP)}\n"


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_letter_that_keeps_failing_is_refused_in_the_end_even_by_force(
    log: InMemoryLog, run: Any, make_trace: MakeTrace, make_feedback: MakeFeedback, force: tuple[str, ...]
) -> None:
    lay(log, make_trace("s"))
    leave_feedback(log, 7, make_feedback(7, session_id="s"), redriven="3")
    status, said = run("redrive", "--place", "feedback/0@7", *force)
    assert (status, put_back(log)) == (1, [])
    assert "refused 1: was put back 3 times before, and --max-times is 3" in said
    assert run("redrive", "--place", "feedback/0@7", "--max-times", "4")[0] == 0
    assert [message.headers["redriven"] for message in log.replay(FEEDBACK.name)] == ["4"]


def test_feedback_that_names_what_can_be_no_trace_is_refused(
    log: InMemoryLog, run: Any, make_feedback: MakeFeedback
) -> None:
    leave_feedback(log, 7, make_feedback(7, trace_id="resp_abc"))
    assert "it names what can be no trace" in run("redrive", "--place", "feedback/0@7")[1]


def test_sessions_are_looked_up_once_and_only_for_feedback_about_nothing_known(log: InMemoryLog) -> None:
    asked: list[int] = []
    rules = choose.Rules(3, False, lambda: asked.append(1) or frozenset(), lambda _: False)
    for letter in letters.each(log, parked(FEEDBACK.name, GROUP)):
        rules.would_fail(letter, FEEDBACK)
    assert asked == []
    for letter in letters.each(log, DLQ):
        rules.would_fail(letter, FEEDBACK)
    assert asked == [1]


def test_a_choice_that_nothing_meets_is_said_so(run: Any) -> None:
    status, said = run("redrive", "--topic", "traces")
    assert (status, said) == (1, "onstream: dlq: no such letter; `onstream dlq list` tells which there are\n")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("redrive", "--topic", "traecs"), "argument --topic: invalid choice: 'traecs' (choose from "),
        (("redrive", "--group", "gate"), "argument --group: invalid choice: 'gate'"),
        (("redrive", "--place", "traces:0:1"), "a place is topic/partition@offset, like traces/0@17, got 'traces:0:1'"),
        (("redrive", "--max-times", "0"), "a number from 1 to 1000, got '0'"),
    ],
)
def test_a_mistyped_choice_is_named_with_what_is_possible(
    argv: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(list(argv))
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_broker_that_is_away_is_one_line(tmp_path: Any, unreachable: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for local, told in ((True, "no broker answers at"), (False, "event log: no broker answers at")):
        config = tmp_path / "onstream.yaml"
        log = {"brokers": unreachable.brokers, "timeout_s": 1.0, "local": local}
        config.write_text(json.dumps({"model": {"path": "unused"}, "log": log}))
        assert command.main(["list", "--config", str(config)]) == 1
        said = capsys.readouterr().err
        assert (said.count("\n"), told in said) == (1, True)


def test_a_letter_too_large_for_a_record_comes_back_whole(
    log: InMemoryLog, tmp_path: Any, make_feedback: MakeFeedback
) -> None:
    claiming = ClaimLog(log, Claims(str(tmp_path), 3600.0), max_record_bytes=100)
    feedback = make_feedback(9, session_id="s", comment=" ".join(map(str, range(100))))
    value, headers = codec.encode(feedback)
    leave(claiming, 9, value, headers, Failure.UNREADABLE, "an older reader could not read it")
    wanted = choose.Wanted(place=Place.parse("feedback/0@9"))
    (source, *_) = wanted.sources()
    plan = command.redriven(claiming, source, wanted, choose.Rules.of(claiming, 3), 1.0)
    assert (len(plan.chosen), plan.refused) == (1, [])
    (raw,), (back,) = log.replay(FEEDBACK.name), claiming.replay(FEEDBACK.name)
    assert (raw.value, back.value) == (b"", value)

"""Alike prompts have alike bits, in every process."""

import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from ingest.records.events import ChatMessage, CloseReason, Trajectory, Turn, TurnKind
from ingest.sessions.sketch import MAX_CHARS, bits, sketch_of, sketches

TICKET = "Summarise the ticket below and tell {} what to do: the printer on the third floor prints blank pages."
POEM = "Write a short birthday poem for my sister, who turns forty on Saturday and likes hiking in the mountains."


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", text=text)


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def apart(one: str, other: str) -> int:
    return distance(sketch_of([user(one)]), sketch_of([user(other)]))


def test_the_sketch_of_a_text_is_the_same_for_ever() -> None:
    assert bits("hello world") == "6837187952f58cc4"
    code = "from ingest.sessions.sketch import bits; print(bits('hello world'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "6837187952f58cc4"


@given(st.text(st.characters(), max_size=300))
def test_any_text_has_sixteen_hex_digits_or_nothing_to_compare(text: str) -> None:
    found = sketch_of([user(text)])
    assert (len(found) == 16 and int(found, 16) >= 0) if text.split() else not found


def test_case_white_space_and_compatibility_forms_make_no_difference() -> None:
    assert apart(POEM, f"  {POEM.upper()}\n\n") == 0
    assert apart("\ufb01nd the \uff21nswer to this question please", "find the Answer to  this question please") == 0


def test_another_name_in_a_template_and_an_edited_word_move_few_bits() -> None:
    assert apart(TICKET.format("Anna"), TICKET.format("Dimitri")) <= 9
    assert apart(POEM, POEM.replace("hiking", "sailing")) <= 9


def test_unrelated_prompts_differ_in_about_half_of_the_bits() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=100)) for _ in range(60)]
    found = [apart(one, other) for one in texts for other in texts if one < other]
    assert min(found) > 12 and 30 < sum(found) / len(found) < 34


def test_neither_system_prompts_nor_the_models_words_are_sketched() -> None:
    system, said = ChatMessage(role="system", text=POEM), ChatMessage(role="assistant", text=POEM)
    assert sketch_of([system, said, user(TICKET)]) == sketch_of([user(TICKET)])
    assert sketch_of([system]) == sketch_of([]) == ""


def test_a_tools_result_is_part_of_the_prompt() -> None:
    assert sketch_of([ChatMessage(role="tool", text=TICKET)]) == sketch_of([user(TICKET)])


def test_a_short_prompt_is_read_with_what_it_goes_on_from_and_a_long_one_is_not() -> None:
    elders = [[user(text)] for text in (POEM, TICKET)]
    short, long = ([sketch_of([user(text)], before) for before in elders] for text in ("go on", TICKET))
    assert distance(*short) > 12 and distance(*long) == 0
    assert sketch_of([user("go on")]) != ""


def test_of_a_very_long_text_the_end_is_sketched() -> None:
    end = "z" * 10 + POEM
    assert sketch_of([user("a" * MAX_CHARS + " b " * MAX_CHARS + end)]) == sketch_of([user(" b " * MAX_CHARS + end)])


def turn(name: str, parent: str | None, asked: str, reply: str) -> Turn:
    return Turn(
        trace_id=name, kind=TurnKind.MAIN, parent=parent, messages=(user(asked),), context=asked, reply=reply,
        followup=None, finish_reason="stop", status=200, num_tokens=1, versions=(0,), at=0.0,
    )  # fmt: skip


def test_a_sessions_turns_are_sketched_with_their_elders() -> None:
    turns = (turn("a", None, POEM, "Of course."), turn("b", "a", "go on", "And on."), turn("c", "gone", "go on", ""))
    trajectory = Trajectory(
        trajectory_id="t", session_id="s", tenant="t", assignment=None, held_out=False, closed=CloseReason.INACTIVE,
        opened_at=0.0, closed_at=0.0, turns=turns, chains=(), feedback=(),
    )  # fmt: skip
    reply = ChatMessage(role="assistant", text="Of course.")
    assert sketches(trajectory) == {
        "a": sketch_of([user(POEM)]),
        "b": sketch_of([user("go on")], [reply, user(POEM)]),
        "c": sketch_of([user("go on")]),
    }

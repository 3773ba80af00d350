"""The agents' world: files, tests, budgets and what the log says of their summaries. No engine, no log."""

import json
import random

import pytest
from context import SYSTEM, Context
from tasks import FAMILIES, NUM_FACTS, Job, make
from workspace import Call


@pytest.fixture
def job() -> Job:
    return make(random.Random(1))


def test_a_test_passes_only_by_the_value_that_its_document_says(job: Job) -> None:
    wanted, *others = job.workspace.requirements
    job.workspace.call(Call("set_value", {"name": wanted.name, "value": wanted.value + "0"}))
    assert wanted in job.workspace.failing()
    job.workspace.call(Call("set_value", {"name": wanted.name, "value": wanted.value}))
    assert job.workspace.failing() == tuple(others)


def test_a_new_job_passes_no_test() -> None:
    jobs = [make(random.Random(seed)) for seed in range(300)]
    assert all(len(job.workspace.failing()) == NUM_FACTS for job in jobs)


def test_an_outcome_is_as_high_as_the_share_of_tests_that_pass(job: Job) -> None:
    outcomes = [job.outcome()]
    for wanted in job.workspace.requirements:
        job.workspace.call(Call("set_value", {"name": wanted.name, "value": wanted.value}))
        outcomes.append(job.outcome())
    assert outcomes == pytest.approx([-1.0, -1 / 3, 1 / 3, 1.0])


def test_every_document_holds_its_value_and_no_other_text_of_the_job_does(job: Job) -> None:
    for wanted in job.workspace.requirements:
        assert job.family.value_in(job.workspace.call(wanted.reading)) == wanted.value
        assert job.family.value_in(job.question(wanted.name)) is None


def test_the_task_list_and_the_tests_follow_the_files(job: Job) -> None:
    wanted = job.workspace.requirements[0]
    job.workspace.call(Call("set_value", {"name": wanted.name, "value": wanted.value}))
    assert wanted.name not in job.workspace.call(Call("list_tasks"))
    assert job.workspace.call(Call("run_tests")).startswith(f"tests: 1 passed, {NUM_FACTS - 1} failed")


def test_what_a_tool_cannot_do_is_its_result(job: Job) -> None:
    assert job.workspace.call(Call("read_file", {"path": "docs/none.md"})) == "error: no file docs/none.md"
    assert job.workspace.call(Call("delete_all")) == "error: no tool delete_all"


@pytest.mark.parametrize(("reply", "value"), [("The port is 45, not 46.", "45"), ("It is 4.", None), ("1450", None)])
def test_a_replys_value_is_the_first_whole_one(reply: str, value: str | None) -> None:
    assert FAMILIES[0].value_in(reply) == value


def test_a_step_that_no_longer_fits_the_budget_has_no_room() -> None:
    context = Context(100)
    context.say("Read.")
    context.take("It says 45.", 60)
    assert context.has_room(40)
    assert not context.has_room(41)


def test_a_context_that_was_just_cut_is_never_cut_again() -> None:
    context = Context(100)
    context.take("It says 45.", 99)
    context.restart("a summary")
    assert context.has_room(1_000)


def test_of_a_context_that_is_cut_only_the_summary_is_left() -> None:
    context = Context(100)
    context.say("Read docs/port.md.")
    context.take("It says 45.", 60)
    context.restart("All is read.")
    context.say("Which port?")
    assert [message["role"] for message in context.messages] == ["system", "user"]
    assert context.messages[0]["content"] == SYSTEM
    assert "All is read." in context.messages[1]["content"]
    assert context.messages[1]["content"].endswith("Which port?")
    assert "docs/port.md" not in str(context.messages)


def test_a_tools_result_answers_the_call_that_the_last_reply_carries(job: Job) -> None:
    context = Context(100)
    context.say("Begin.")
    context.take("I read it.", 20)
    wanted = job.workspace.requirements[0]
    context.work(wanted.reading, job.workspace)
    *_, reply, result = context.messages
    (call,) = reply["tool_calls"]
    assert (call["id"], call["function"]["name"]) == (result["tool_call_id"], "read_file")
    assert json.loads(call["function"]["arguments"]) == {"path": wanted.doc}
    assert job.family.value_in(result["content"]) == wanted.value

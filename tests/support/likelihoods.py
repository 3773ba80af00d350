"""What every `Likelihoods` must keep: subclass `Conformance` where a fixture `likelihoods` gives one, and `away` one
that nobody answers."""

import pytest

from ingest.records.events import ChatMessage
from ingest.records.questions import Prompt, Query
from rewards.summary.likelihood import Likelihoods, UnavailableError

TOLD = (
    ChatMessage(role="system", text="You help with a release."),
    ChatMessage(role="user", text="The password plum-7731-walnut opens the staging server. Please write it down."),
    ChatMessage(role="assistant", text="Noted: plum-7731-walnut opens it."),
    ChatMessage(role="user", text="What is the password of the staging server?"),
)
OPEN = Prompt(messages=TOLD, is_open=True)


async def reply(likelihoods: Likelihoods, text: str) -> tuple[int, ...]:
    """The tokens that a reply of `text` adds to `OPEN`."""
    whole = Prompt(messages=(*TOLD, ChatMessage(role="assistant", text=text)))
    before, after = await likelihoods.render([OPEN, whole])
    assert after[: len(before)] == before
    return after[len(before) :]


class Conformance:
    async def test_the_same_messages_render_to_the_same_tokens(self, likelihoods: Likelihoods) -> None:
        first, again = await likelihoods.render([OPEN, OPEN])
        assert first == again
        assert await likelihoods.render([OPEN]) == [first]

    async def test_other_messages_and_an_open_end_render_to_other_tokens(self, likelihoods: Likelihoods) -> None:
        closed = OPEN.model_copy(update={"is_open": False})
        shorter = OPEN.model_copy(update={"messages": TOLD[:-1]})
        assert len(set(await likelihoods.render([OPEN, closed, shorter]))) == 3

    async def test_spans_add_up_to_the_whole(self, likelihoods: Likelihoods) -> None:
        tokens = await reply(likelihoods, "It is plum-7731-walnut, as you said.")
        end, cut = len(tokens), len(tokens) // 2
        query = Query(prompt=OPEN, token_ids=tokens, spans=((0, end), (0, cut), (cut, end)))
        ((whole, head, tail),) = (await likelihoods.score([query])).logps
        assert whole == pytest.approx(head + tail, rel=1e-6)
        assert head < 0.0
        assert tail < 0.0

    async def test_what_the_prompt_quotes_is_likelier_than_what_it_does_not(self, likelihoods: Likelihoods) -> None:
        replies = [await reply(likelihoods, text) for text in ("plum-7731-walnut", "kiwi-9052-saddle")]
        queries = [Query(prompt=OPEN, token_ids=tokens, spans=((0, len(tokens)),)) for tokens in replies]
        (likely,), (unlikely,) = (await likelihoods.score(queries)).logps
        assert likely > unlikely + 1.0

    async def test_an_answer_has_a_row_for_each_question_in_order(self, likelihoods: Likelihoods) -> None:
        tokens = await reply(likelihoods, "It is plum-7731-walnut.")
        spans = [((0, 1),), ((0, 2), (1, 2)), ((0, len(tokens)),)]
        scores = await likelihoods.score([Query(prompt=OPEN, token_ids=tokens, spans=one) for one in spans])
        assert [len(row) for row in scores.logps] == [1, 2, 1]
        assert scores.num_tokens > 0

    async def test_asking_twice_gives_the_same_numbers(self, likelihoods: Likelihoods) -> None:
        tokens = await reply(likelihoods, "It is plum-7731-walnut.")
        query = Query(prompt=OPEN, token_ids=tokens, spans=((0, len(tokens)),))
        first, again = [(await likelihoods.score([query])).logps[0][0] for _ in range(2)]
        assert first == pytest.approx(again, rel=0.02)  # bfloat16 sums depend on what shares a batch

    async def test_sampling_gives_as_many_continuations_as_asked_and_none_longer(
        self, likelihoods: Likelihoods
    ) -> None:
        (samples,) = await likelihoods.sample([OPEN], num=3, max_tokens=5)
        assert len(samples) == 3
        assert all(0 < len(sampled.token_ids) <= 5 for sampled in samples)

    async def test_nothing_asked_is_nothing_answered(self, likelihoods: Likelihoods) -> None:
        assert await likelihoods.render([]) == []
        assert (await likelihoods.score([])).logps == ()

    async def test_every_question_tells_that_nobody_answers(self, away: Likelihoods) -> None:
        query = Query(prompt=OPEN, token_ids=(1,), spans=((0, 1),))
        with pytest.raises(UnavailableError):
            await away.render([OPEN])
        with pytest.raises(UnavailableError):
            await away.score([query])
        with pytest.raises(UnavailableError):
            await away.sample([OPEN], num=1, max_tokens=1)

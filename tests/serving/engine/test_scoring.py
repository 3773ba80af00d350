"""The scoring port over a model that adds numbers up: who may ask, what is answered, what a swap and a user do."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ingest.records.events import ChatMessage, ToolCall
from ingest.records.questions import Prompt, Query, Sampled
from serving.engine import scoring
from serving.engine.idle import Users
from serving.engine.pieces import Tokens
from serving.engine.scoring import Pace, Scoring
from serving.engine.vllm_model import as_openai, tools_of

TOKEN = "secret"


class Adder:
    """A token's log-probability is minus itself; letters are tokens. `before` is called at the start of each piece."""

    block, max_len = 4, 40

    def __init__(self) -> None:
        self.warmed: list[Tokens] = []
        self.before: Callable[[], None] = lambda: None
        self.hangs: asyncio.Event | None = None
        self.began = asyncio.Event()

    def render(self, prompt: Prompt) -> Tokens:
        if prompt.messages[0].role == "nobody":
            raise ValueError("the chat template refuses these messages: nobody")
        return tuple(ord(letter) for message in prompt.messages for letter in message.text)

    async def warm(self, token_ids: Tokens) -> int:
        await self._begin()
        self.warmed.append(token_ids)
        return 4

    async def logps(self, token_ids: Tokens, start: int, then: int | None) -> tuple[list[float], int]:
        await self._begin()
        asked = token_ids[start:] if then is None else (*token_ids[start:], then)
        return [-float(token) for token in asked], len(token_ids) - start

    async def sample(self, token_ids: Tokens, num: int, max_tokens: int) -> tuple[Sampled, ...]:
        await self._begin()
        return tuple(Sampled(token_ids=token_ids[:max_tokens], text=f"#{n}") for n in range(num))

    async def _begin(self) -> None:
        self.before()
        self.began.set()
        if self.hangs is not None:
            await self.hangs.wait()


class Weights:
    version, epoch = 3, 0

    def swap(self) -> None:
        self.version, self.epoch = self.version + 1, self.epoch + 1


class Port:
    def __init__(self) -> None:
        self.model, self.weights, self.users = Adder(), Weights(), Users()
        self.app = scoring.application(Scoring(self.model, self.weights, self.users), TOKEN)

    async def ask(self, path: str, body: Any, token: str = TOKEN) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://e0") as client:
            return await client.post(path, json=body, headers={"authorization": f"Bearer {token}"})

    async def score(self, *token_ids: int) -> httpx.Response:
        query = Query(prompt=PROMPT, token_ids=token_ids, spans=((0, len(token_ids)), (0, 1)))
        return await self.ask("/score", {"queries": [query.model_dump(mode="json")]})

    async def sample(self) -> httpx.Response:
        body = {"prompts": [PROMPT.model_dump(mode="json")], "num": 2, "max_tokens": 3}
        return await self.ask("/sample", body)


PROMPT = Prompt(messages=(ChatMessage(role="user", text="abcdef"),))


@pytest.fixture
def port() -> Port:
    return Port()


async def test_spans_are_summed_under_the_version_that_served(port: Port) -> None:
    answer = await port.score(1, 2, 5)
    assert answer.json() == {"version": 3, "logps": [[-8.0, -1.0]], "num_tokens": 4 + 2}
    assert port.model.warmed == [tuple(b"abcd")]


async def test_messages_are_rendered_as_the_model_renders_them(port: Port) -> None:
    answer = await port.ask("/render", {"prompts": [PROMPT.model_dump(mode="json")] * 2})
    assert answer.json() == {"token_ids": [list(b"abcdef")] * 2}


async def test_samples_come_with_their_text(port: Port) -> None:
    (samples,) = (await port.sample()).json()["samples"]
    assert samples == [{"token_ids": list(b"abc"), "text": f"#{n}"} for n in range(2)]


@pytest.mark.parametrize("path", ["/render", "/score", "/sample"])
async def test_every_route_wants_the_scoring_token(port: Port, path: str) -> None:
    answer = await port.ask(path, {}, token="wrong")
    assert (answer.status_code, answer.json()["error"]) == (401, "this port needs the scoring token")


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/score", {"queries": [{}]}, "queries.0.prompt: Field required"),
        ("/score", {"queries": [{"prompt": PROMPT.model_dump(), "token_ids": [1], "spans": [[0, 2]]}]}, "a span must"),
        ("/sample", {"prompts": [], "num": 99, "max_tokens": 1}, "num: Input should be less than"),
        ("/render", {"prompts": [{"messages": [{"role": "nobody", "text": ""}]}]}, "template refuses"),
        ("/sample", {"prompts": [PROMPT.model_dump()], "num": 1, "max_tokens": 99}, "may have 40 tokens, got 105"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_wrong(
    port: Port, path: str, body: dict[str, Any], told: str
) -> None:
    answer = await port.ask(path, body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


async def test_after_a_swap_in_the_middle_all_of_an_answer_is_computed_again(port: Port) -> None:
    swaps = iter([port.weights.swap])
    port.model.before = lambda: next(swaps, lambda: None)()
    answer = await port.score(1, 2)
    assert answer.json()["version"] == 4
    assert port.model.warmed == [tuple(b"abcd")] * 2


async def test_a_question_waits_for_users_to_go(port: Port) -> None:
    with port.users.one():
        asked = asyncio.create_task(port.score(1))
        await asyncio.sleep(0)
        assert not port.model.began.is_set()
    assert (await asked).status_code == 200


async def test_users_who_do_not_go_are_answered_with_503(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PATIENCE_S", 0.01)
    with port.users.one():
        answer = await port.score(1)
    assert (answer.status_code, answer.json()["error"]) == (503, "busy with users")


async def test_sampling_waits_for_nobody(port: Port) -> None:
    with port.users.one():
        async with asyncio.timeout(0.5):
            answer = await port.sample()
    assert (answer.status_code, answer.json()["error"]) == (503, "busy with users")


async def test_sampling_does_not_wait_for_other_questions_either(port: Port) -> None:
    port.model.hangs = asyncio.Event()
    first = asyncio.create_task(port.score(1))
    await port.model.began.wait()
    answer = await port.sample()
    assert (answer.status_code, answer.json()["error"]) == (503, "busy with other questions")
    port.model.hangs.set()
    assert (await first).status_code == 200


async def test_what_the_engine_finds_wrong_is_a_wrong_question(port: Port) -> None:
    def refuse() -> None:
        raise ValueError("token id 7 is out of vocabulary")

    port.model.before = refuse
    answer = await port.score(7)
    assert (answer.status_code, answer.json()["error"]) == (400, "token id 7 is out of vocabulary")


async def test_a_question_whose_client_left_holds_up_nobody(port: Port) -> None:
    port.model.hangs = asyncio.Event()
    query = Query(prompt=PROMPT, token_ids=(1,), spans=((0, 1),)).model_dump(mode="json")
    sent = [{"type": "http.request", "body": json.dumps({"queries": [query]}).encode(), "more_body": False}]
    statuses = []

    async def receive() -> Any:
        if sent:
            return sent.pop()
        await port.model.began.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b"", "headers": headers}
    await port.app(scope, receive, send)
    assert statuses[0] == 499
    port.model.hangs.set()
    assert (await port.score(1)).status_code == 200


def test_the_pace_grows_while_pieces_are_quick_and_shrinks_when_one_is_slow() -> None:
    pace = Pace(128)
    for _ in range(3):
        pace.note(pace.limit, 0.01)
    assert pace.limit == 1024
    pace.note(1024, 1.0)
    assert pace.limit == 512
    pace.note(10, 0.0)  # from the cache
    assert pace.limit == 512
    for _ in range(5):
        pace.note(pace.limit, 9.0)
    assert pace.limit == 128


def test_tool_calls_and_results_are_told_as_chat_templates_take_them() -> None:
    called = ChatMessage(
        role="assistant", text="", tool_calls=(ToolCall(name="read", arguments='{"a": 1}', call_id="c"),)
    )
    (call,) = as_openai(called)["tool_calls"]
    assert call == {"id": "c", "type": "function", "function": {"name": "read", "arguments": {"a": 1}}}
    assert as_openai(ChatMessage(role="tool", text="ok", call_id="c")) == {
        "role": "tool", "content": "ok", "tool_call_id": "c",
    }  # fmt: skip
    broken = ChatMessage(role="assistant", text="", tool_calls=(ToolCall(name="read", arguments="{a:"),))
    assert as_openai(broken)["tool_calls"][0]["function"]["arguments"] == "{a:"


def test_tools_are_offered_in_the_chat_form() -> None:
    chat = {"type": "function", "function": {"name": "read"}}
    assert tools_of('[{"type": "function", "function": {"name": "read"}}]') == [chat]
    assert tools_of('[{"name": "read"}]') == [{"type": "function", "function": {"name": "read"}}]
    assert tools_of("") is tools_of("[]") is None
    with pytest.raises(ValueError, match="must be the JSON text of a list of tools"):
        tools_of("read")

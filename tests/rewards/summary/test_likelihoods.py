"""The fake, and the client in front of a scoring port, keep the same rules; and how the client picks an engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from likelihoods import OPEN, Conformance
from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from upstreams import serving

from infra.config import Config
from infra.errors import StartError
from ingest.records.questions import Query, Rendered, RenderRequest, SampleRequest, Samples, ScoreRequest
from rewards.summary import engines
from rewards.summary.engines import EngineLikelihoods
from rewards.summary.fake import CopyingLikelihoods
from rewards.summary.likelihood import Likelihoods, UnavailableError

TOKEN = "secret"
QUERY = Query(prompt=OPEN, token_ids=(1, 2), spans=((0, 2),))


class Port:
    """A scoring port over the fake. `answers` replaces what it says; `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.fake = CopyingLikelihoods()
        self.answers: JSONResponse | None = None
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{free_port()}"

    async def _render(self, asked: RenderRequest) -> Rendered:
        return Rendered(token_ids=tuple(await self.fake.render(asked.prompts)))

    async def _score(self, asked: ScoreRequest) -> Any:
        return await self.fake.score(asked.queries)

    async def _sample(self, asked: SampleRequest) -> Samples:
        return Samples(version=0, samples=tuple(await self.fake.sample(asked.prompts, asked.num, asked.max_tokens)))

    def application(self) -> Starlette:
        def route(path: str, kind: Any, answer: Callable[[Any], Any]) -> Route:
            async def handle(request: Request) -> JSONResponse:
                self.asked.append(path)
                if request.headers["authorization"] != f"Bearer {TOKEN}":
                    return JSONResponse({"error": "this port needs the scoring token"}, 401)
                if self.answers is not None:
                    return self.answers
                given = await answer(kind.model_validate_json(await request.body()))
                return JSONResponse(given.model_dump(mode="json"))

            return Route(path, handle, methods=["POST"])

        return Starlette(
            routes=[
                route("/render", RenderRequest, self._render),
                route("/score", ScoreRequest, self._score),
                route("/sample", SampleRequest, self._sample),
            ]
        )


@pytest.fixture
async def ports() -> AsyncIterator[tuple[Port, Port]]:
    async with AsyncExitStack() as stack:
        held = Port(), Port()
        for port in held:
            await stack.enter_async_context(serving(port.application(), int(port.url.rpartition(":")[2])))
        yield held


@pytest.fixture
async def client(ports: tuple[Port, Port]) -> AsyncIterator[EngineLikelihoods]:
    held = EngineLikelihoods([port.url for port in ports], TOKEN, timeout_s=5.0)
    yield held
    await held.close()


class TestFake(Conformance):
    @pytest.fixture
    def likelihoods(self) -> Likelihoods:
        return CopyingLikelihoods()

    @pytest.fixture
    def away(self) -> Likelihoods:
        return CopyingLikelihoods(is_available=False)

    async def test_costs_are_those_of_known_and_of_new_words(self) -> None:
        fake = CopyingLikelihoods(known=0.5, new=4.0)
        known, new = (await fake.render([OPEN]))[0][1], 7
        query = Query(prompt=OPEN, token_ids=(known, new, new), spans=((0, 1), (1, 2), (2, 3)))
        assert (await fake.score([query])).logps == ((-0.5, -4.0, -0.5),)

    async def test_samples_are_copied_from_the_last_message(self) -> None:
        ((first, second),) = await CopyingLikelihoods().sample([OPEN], num=2, max_tokens=3)
        assert (first.text, second.text) == ("What is the", "is the password")


class TestClient(Conformance):
    @pytest.fixture
    def likelihoods(self, client: EngineLikelihoods) -> Likelihoods:
        return client

    @pytest.fixture
    async def away(self) -> AsyncIterator[Likelihoods]:
        held = EngineLikelihoods([f"http://127.0.0.1:{free_port()}"], TOKEN, timeout_s=1.0)
        yield held
        await held.close()


async def test_engines_are_asked_in_turn(client: EngineLikelihoods, ports: tuple[Port, Port]) -> None:
    for _ in range(4):
        await client.render([OPEN])
    assert [len(port.asked) for port in ports] == [2, 2]


async def test_a_busy_engine_is_passed_by(client: EngineLikelihoods, ports: tuple[Port, Port]) -> None:
    ports[0].answers = JSONResponse({"error": "busy with users"}, 503)
    assert (await client.score([QUERY])).logps
    assert [port.asked for port in ports] == [["/score"], ["/score"]]


async def test_when_all_are_busy_the_error_has_what_each_said(
    client: EngineLikelihoods, ports: tuple[Port, Port]
) -> None:
    ports[0].answers = JSONResponse({"error": "busy with users"}, 503)
    ports[1].answers = JSONResponse({"error": "busy with a swap of weights"}, 503)
    with pytest.raises(UnavailableError) as raised:
        await client.score([QUERY])
    for port, reason in zip(ports, ("busy with users", "busy with a swap of weights"), strict=True):
        assert f"{port.url}: {reason}" in str(raised.value)


async def test_a_question_that_is_wrong_is_asked_once_and_told(
    client: EngineLikelihoods, ports: tuple[Port, Port]
) -> None:
    ports[0].answers = JSONResponse({"error": "too many tokens"}, 400)
    with pytest.raises(ValueError, match="too many tokens"):
        await client.score([QUERY])
    assert ports[1].asked == []


@pytest.mark.parametrize("answer", [{"version": 0}, {"version": 0, "logps": [["x"]], "num_tokens": 1}, []])
async def test_an_answer_that_is_none_is_no_answer(
    client: EngineLikelihoods, ports: tuple[Port, Port], answer: Any
) -> None:
    for port in ports:
        port.answers = JSONResponse(answer)
    with pytest.raises(UnavailableError, match="not Scores"):
        await client.score([QUERY])


async def test_a_wrong_token_is_unavailable_and_says_so(ports: tuple[Port, Port]) -> None:
    stranger = EngineLikelihoods([port.url for port in ports], "wrong", timeout_s=5.0)
    with pytest.raises(UnavailableError, match="needs the scoring token"):
        await stranger.render([OPEN])
    await stranger.close()


def slots(*scoring_ports: int | None) -> Config:
    engines_given = [
        {"id": f"e{n}", "arm": arm, "port": 1 + n, "control_port": 11 + n, "scoring_port": port}
        for n, (arm, port) in enumerate(zip(("stable", "candidate"), scoring_ports, strict=True))
    ]
    return Config.model_validate({"model": {"path": "w"}, "serving": {"engines": engines_given}})


def test_without_a_scoring_port_there_is_nobody_to_ask() -> None:
    assert engines.of(slots(None, None), {}) is None


def test_a_scoring_port_without_a_credential_is_refused() -> None:
    with pytest.raises(StartError, match="ONSTREAM_SCORING_TOKEN is not set"):
        engines.of(slots(21, None), {})


async def test_the_client_of_a_configuration_asks_its_scoring_ports() -> None:
    held = engines.of(slots(21, None), {"ONSTREAM_SCORING_TOKEN": TOKEN})
    assert held is not None
    assert held._urls == ("http://127.0.0.1:21",)
    await held.close()

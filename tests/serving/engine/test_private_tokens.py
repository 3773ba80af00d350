"""What redaction took out of a trace's texts, its tokens do not spell, whole or cut: with SmolLM2's own vocabulary."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest
from intakes import SECRET
from private_texts import Labelled, texts
from tokenizers import Tokenizer

from ingest.privacy.intake import Intake
from ingest.privacy.kinds import Kind
from ingest.privacy.redact import Redactor
from ingest.records import codec
from ingest.records.events import Assignment, Consent, Sampling, Trace, TurnKind
from ingest.records.prefixes import Wholes
from serving import headers
from serving.engine.capture import Capture, Exchange, Reply
from serving.engine.recent import Recent
from serving.engine.vocabulary import Vocabulary
from serving.headers import Identity
from serving.spool import Spool

MODEL = Path(__file__).parents[3] / ".onstream" / "model"
END = "<|im_end|>"
EMAIL = "anna.meier@example.org"
BLOB = base64.b64encode(b"Anna Meier, born on 3 May 1980 in Ulm, has diabetes. " * 12).decode()


class Model:
    """SmolLM2's vocabulary and chat template, and an engine's way from a request to a stored trace."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string((MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
        self.pieces = Vocabulary(self.tokenizer)

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def spelled(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def prompt(self, request: dict[str, Any]) -> tuple[int, ...]:
        if "messages" in request:
            return self.ids(self._template.render(messages=request["messages"], add_generation_prompt=True))
        prompt = request["prompt"]
        if isinstance(prompt, str):
            return self.ids(prompt)
        return tuple(prompt[0] if isinstance(prompt[0], list) else prompt)


class Engine:
    """What an engine's capture writes of the turns that it is told."""

    def __init__(self, model: Model, spool: Spool) -> None:
        self._model, self._spool = model, spool
        own = Intake(Redactor(Kind), SECRET, None)
        self._capture = Capture(spool, "e0", 0, Recent(1 << 24, 900.0), own, model.pieces)

    def turn(self, request: dict[str, Any], reply: str = "ok", end: str = END, session: str = "s") -> None:
        """A request was answered."""
        identity = Identity(headers.new_trace(session), session, "t", TurnKind.MAIN, Assignment(), Consent.ASSUMED)
        token_ids = self._model.ids(reply + end)
        sampled = Reply(self._model.prompt(request), Sampling(), 0, list(token_ids), [-1.0] * len(token_ids), [reply])
        body = bytearray(json.dumps(request).encode())
        exchange = Exchange(identity, "/v1/x", 0.0, body, 200, replies={("r", 0): sampled})
        self._capture.finish(exchange, None)

    def stored(self) -> list[Trace]:
        """The traces as they were written."""
        return [codec.decode(frame.value, frame.headers, Trace) for frame in self._spool.pending()]

    def spelled(self) -> list[str]:
        """What the tokens of each turn spell, prompt and reply, its prefix among them."""
        stored = self.stored()
        wholes = Wholes({trace.trace_id: trace for trace in stored})
        joined = [wholes.whole(trace) for trace in stored]
        return [self._model.spelled((*trace.prompt_token_ids, *trace.token_ids)) for trace in joined]


@pytest.fixture(scope="module")
def model() -> Model:
    assert (MODEL / "tokenizer.json").is_file(), f"{MODEL} is not prepared: run `make test`, which prepares it"
    return Model()


@pytest.fixture
def engine(model: Model, tmp_path: Path) -> Iterator[Engine]:
    spool = Spool(tmp_path, 1 << 26, 1 << 24)
    yield Engine(model, spool)
    spool.close()


def said(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]}


def test_a_number_whose_beginning_an_earlier_turn_has_is_in_neither(engine: Engine) -> None:
    engine.turn(said("Please pay with card 4111 1111 11"))
    engine.turn(said("Please pay with card 4111 1111 1111 1111"))
    assert "card 4111 1111 11<" in engine.spelled()[0]
    assert "4111" not in engine.spelled()[1] and "Please pay with card" in engine.spelled()[1]
    assert engine.stored()[1].prefix is not None


def test_a_number_typed_on_in_a_completion_is_in_no_turn(engine: Engine) -> None:
    engine.turn({"prompt": "dear bank, my card is 4111 1111 "}, "", end="")
    engine.turn({"prompt": "dear bank, my card is 4111 1111 1111 1111 thanks"})
    assert "4111" not in engine.spelled()[1] and "dear bank" in engine.spelled()[1]


def test_a_number_that_a_reply_ends_is_not_in_the_tokens(engine: Engine) -> None:
    engine.turn({"prompt": "dear bank, my card is 4111 1111 "}, "1111 1111")
    assert "1111" not in engine.spelled()[0] and engine.stored()[0].is_reply_altered


@pytest.mark.parametrize("text", ["my password is hunter", "the passphrase is correcthorse"])
def test_a_value_that_the_message_ends_with_is_not_in_the_tokens(engine: Engine, text: str) -> None:
    engine.turn(said(text))
    assert text.rpartition(" ")[2] not in engine.spelled()[0] and text.rpartition(" ")[0] in engine.spelled()[0]


@pytest.mark.parametrize("before", ["", "data:text/plain;base64,"])
def test_data_is_not_in_the_tokens(engine: Engine, before: str) -> None:
    engine.turn(said(before + BLOB))
    spelled = engine.spelled()[0]
    assert not any(BLOB[at : at + 16] in spelled for at in range(len(BLOB) - 16)) and before in spelled


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_prompt_given_as_token_ids_is_redacted_in_the_request(model: Model, engine: Engine, is_batch: bool) -> None:
    ids = list(model.ids(f"Write to {EMAIL} please"))
    engine.turn({"prompt": [ids, ids] if is_batch else ids})
    (trace,) = engine.stored()
    left = trace.request["prompt"][1] if is_batch else trace.request["prompt"]
    assert left == list(trace.prompt_token_ids) and trace.redacted
    assert EMAIL not in model.spelled(left) and "Write to" in model.spelled(left)


def test_a_value_that_no_prompt_holds_leaves_the_tokens(model: Model, engine: Engine) -> None:
    request = said("Hello") | {"metadata": {"to": EMAIL}}
    engine.turn(request)
    (trace,) = engine.stored()
    assert trace.redacted == {"email": 1} and trace.prompt_token_ids == model.prompt(request)


def values_of(text: Labelled) -> list[str]:
    """The labelled values that redaction of the text takes out, whole."""
    covered = [(span.start, span.end) for span in Redactor(Kind).spans(text.text)]
    whole = (label for label in text.labels if any(s <= label.start and label.end <= e for s, e in covered))
    return [text.text[label.start : label.end] for label in whole]


def test_no_labelled_value_that_is_gone_from_the_texts_is_in_the_tokens(engine: Engine) -> None:
    values: list[list[str]] = []
    for n, text in enumerate(text for text in texts() if text.labels):
        session, start = f"s{n}", ("Hello", "Hi, what is it?")
        half_typed = text.text[: (text.labels[0].start + text.labels[0].end) // 2]
        engine.turn(said(*start, half_typed), session=session)
        engine.turn(said(*start, text.text), text.text, session=session)
        engine.turn(said(*start, text.text, text.text, f"Again: {text.text}"), session=session)
        values += [[], *[values_of(text)] * 2]
    pairs = zip(values, engine.spelled(), strict=True)
    assert [value for private, spelled in pairs for value in private if value in spelled] == []
    assert sum(map(len, values)) > 1600


def test_a_turn_leans_on_all_of_the_redacted_turn_that_it_goes_on_from(engine: Engine) -> None:
    for n, text in enumerate(texts()):
        engine.turn(said(text.text), text.text, session=f"s{n}")
        engine.turn(said(text.text, text.text, "Thanks"), session=f"s{n}")
    stored = engine.stored()
    num_left_out = [
        (len(one.prompt_token_ids + one.token_ids), two.prefix)
        for one, two in zip(stored[::2], stored[1::2], strict=True)
    ]
    assert [prefix.num_tokens if prefix else 0 for _, prefix in num_left_out] == [num for num, _ in num_left_out]

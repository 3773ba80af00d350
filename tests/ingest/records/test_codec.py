"""Records to bytes and back; `golden/` holds one file of every version ever written."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from infra.errors import ErasedError, NewerError, RecordError
from ingest.log.topics import ALL
from ingest.records import codec, dictionaries
from ingest.records.events import Record, Trace, Trajectory

GOLDEN = Path(__file__).with_name("golden")
KINDS = {topic.record.SCHEMA: topic.record for topic in ALL}


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes().removesuffix(b"\n")


def trace_with(**fields: Any) -> bytes:
    return json.dumps(json.loads(golden("trace.v1.json")) | fields).encode()


def refusal(value: bytes, schema: str | None = "trace/1", kind: type[Record] = Trace) -> str:
    with pytest.raises(RecordError) as raised:
        codec.decode(value, {} if schema is None else {codec.SCHEMA_HEADER: schema}, kind)
    return str(raised.value)


def test_every_record_has_a_golden_file_of_every_version() -> None:
    written = {f"{kind.SCHEMA}.v{version}.json" for kind in KINDS.values() for version in range(1, kind.VERSION + 1)}
    assert {path.name for path in GOLDEN.iterdir()} == written


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_golden_record_is_readable_and_is_written_again_byte_for_byte(name: str) -> None:
    schema, _, version = name.removesuffix(".json").partition(".v")
    record = codec.decode(golden(name), {codec.SCHEMA_HEADER: f"{schema}/{version}"}, KINDS[schema])
    value, headers = codec.encode(record)
    assert codec.decode(value, headers, KINDS[schema]) == record
    if int(version) == record.VERSION:
        assert (codec.plain(value), headers) == (golden(name), {codec.SCHEMA_HEADER: f"{schema}/{version}"})


def test_packed_numbers_of_the_golden_trace_are_those_that_were_sampled() -> None:
    trace = codec.decode(golden("trace.v1.json"), {codec.SCHEMA_HEADER: "trace/1"}, Trace)
    assert trace.prompt_token_ids == (1, 4093, 49151, 2**32 - 1)
    assert trace.token_ids == (3705, 30, 2)
    assert trace.logprobs == pytest.approx((-0.25, -1.5e-5, -13.815511), rel=1e-7)
    assert [(span.version, span.start, span.end) for span in trace.spans] == [(6, 0, 2), (7, 2, 3)]


def test_token_ids_and_logprobs_are_little_endian_words() -> None:
    raw = json.loads(golden("trace.v1.json"))
    assert base64.b64decode(raw["token_ids"]) == bytes.fromhex("790e0000 1e000000 02000000")
    assert base64.b64decode(raw["logprobs"])[:4] == bytes.fromhex("000080be")


def test_numbers_of_version_3_lie_byte_plane_after_byte_plane() -> None:
    raw = json.loads(golden("trace.v3.json"))
    assert raw["token_ids"][0] == "~"
    assert base64.b64decode(raw["token_ids"][1:]) == bytes.fromhex("791e02 0e0000 000000 000000")
    old = json.loads(golden("trace.v1.json"))
    new = codec.decode(golden("trace.v3.json"), {codec.SCHEMA_HEADER: "trace/3"}, Trace)
    assert new.logprobs == Trace.model_validate(old).logprobs


def test_a_large_value_is_compressed_and_a_small_one_is_as_it_was() -> None:
    trace = codec.decode(golden("trace.v3.json"), {codec.SCHEMA_HEADER: "trace/3"}, Trace)
    value, _ = codec.encode(trace.model_copy(update={"reply_text": "x" * 10_000}))
    assert len(value) < 3000 and json.loads(codec.plain(value))["reply_text"] == "x" * 10_000
    assert codec.plain(b'{"a":1}') == b'{"a":1}'


def dictionary_of(value: bytes) -> int:
    return zstandard.get_frame_parameters(value).dict_id


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_value_that_was_compressed_without_a_dictionary_stays_readable(name: str) -> None:
    old = zstandard.compress(golden(name), level=1)
    assert dictionary_of(old) == 0 and codec.plain(old) == golden(name)


def test_a_value_names_the_newest_dictionary_and_a_large_one_none() -> None:
    assert dictionary_of(codec.packed(golden("fate.v2.json"))) == dictionaries.NUMBERS[-1]
    assert dictionary_of(codec.packed(golden("trace.v3.json").ljust(codec._LARGE_BYTES))) == 0


def test_a_value_compressed_with_a_dictionary_that_is_not_here_is_newer_and_not_damaged() -> None:
    words = [bytes([65 + n % 26, 66 + n % 7, 67 + n % 5]) * 20 for n in range(500)]
    value = zstandard.ZstdCompressor(dict_data=zstandard.train_dictionary(1024, words, dict_id=7)).compress(words[0])
    with pytest.raises(NewerError) as raised:
        codec.decode(value, {codec.SCHEMA_HEADER: "trace/3"}, Trace)
    assert str(raised.value) == "compressed with dictionary 7, this reader knows 1; upgrade the reader"


@pytest.mark.parametrize("cut", [5, 12, 40])
def test_a_compressed_value_that_is_damaged_is_refused(cut: int) -> None:
    value, headers = codec.encode(codec.decode(golden("trace.v3.json"), {codec.SCHEMA_HEADER: "trace/3"}, Trace))
    with pytest.raises(RecordError, match="compressed record"):
        codec.decode(value[:cut], headers, Trace)


def test_a_compressed_value_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_MAX_PLAIN_BYTES", 9_999)
    with pytest.raises(RecordError, match="may unfold to 9999 bytes, got 10000"):
        codec.plain(zstandard.compress(bytes(10_000)))


def test_a_compressed_value_that_does_not_say_how_large_it_is_is_refused() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(golden("trace.v1.json"))
    with pytest.raises(RecordError, match=r"may unfold to \d+ bytes, got \d+$"):
        codec.plain(silent)


def test_a_record_without_a_schema_is_refused() -> None:
    assert refusal(golden("trace.v1.json"), None) == "expected schema trace/1..5, got None"


@pytest.mark.parametrize("schema", ["feedback/1", "trace", "trace/", "trace/one", "trace/-1", "trace/" + "1" * 5000])
def test_a_record_that_claims_another_schema_is_refused(schema: str) -> None:
    assert refusal(golden("trace.v1.json"), schema) == f"expected schema trace/1..5, got {schema!r}"


def test_bytes_that_are_not_the_schema_they_claim_are_refused() -> None:
    assert refusal(golden("feedback.v1.json")) == "trace/1: assignment: Field required"


@pytest.mark.parametrize("version", ["6", "17"])
def test_a_version_this_reader_does_not_know_is_newer_and_not_damaged(version: str) -> None:
    with pytest.raises(NewerError) as raised:
        codec.decode(golden("trace.v1.json"), {codec.SCHEMA_HEADER: f"trace/{version}"}, Trace)
    assert str(raised.value) == f"trace: this reader knows versions 1..5, got {version}; upgrade the reader"


def test_a_version_there_never_was_is_damaged_and_not_newer() -> None:
    with pytest.raises(RecordError, match=r"^trace: versions begin at 1, got 0$") as raised:
        codec.decode(golden("trace.v1.json"), {codec.SCHEMA_HEADER: "trace/0"}, Trace)
    assert not isinstance(raised.value, NewerError)


@pytest.mark.parametrize("value", [b"", b"not json", b"[]", b"\xff\xfe", b'{"trace_id": ', b"[" * 10_000])
def test_bytes_that_are_not_an_object_are_refused(value: bytes) -> None:
    assert refusal(value).startswith("trace/1: record: ")


@pytest.mark.parametrize(
    ("field", "packed", "rule"),
    [
        ("token_ids", "not base64!", "base64"),
        ("token_ids", "AAAA", "packed numbers take 4 bytes each, got 3 bytes"),
        ("logprobs", "AACAvg", "padding"),
        ("prompt_token_ids", 7, "numbers, or a string that packs them, got int"),
    ],
)
def test_broken_packing_names_its_field(field: str, packed: object, rule: str) -> None:
    message = refusal(trace_with(**{field: packed}))
    assert message.startswith(f"trace/1: {field}: ")
    assert rule in message


def test_logprobs_that_do_not_match_the_tokens_are_refused() -> None:
    two = base64.b64encode(bytes(8)).decode()
    assert refusal(trace_with(logprobs=two)).endswith("a log-probability per reply token: 3 tokens, 2 values")


@pytest.mark.parametrize(
    "spans",
    [
        [{"version": 6, "start": 0, "end": 2}],
        [{"version": 6, "start": 1, "end": 3}],
        [{"version": 6, "start": 0, "end": 1}, {"version": 7, "start": 2, "end": 3}],
    ],
)
def test_version_spans_that_do_not_tile_the_reply_are_refused(spans: list[dict[str, int]]) -> None:
    assert "version spans must tile [0, 3), got " in refusal(trace_with(spans=spans))


@pytest.mark.parametrize("wrong", [{"base": 1, "shared": 0}, {"base": 0, "shared": 10**6}, {"base": None, "shared": 1}])
def test_a_chain_that_leans_on_what_is_not_there_is_refused(wrong: dict[str, int | None]) -> None:
    trajectory = json.loads(golden("trajectory.v2.json"))
    first = {name: value for name, value in trajectory["chains"][0].items() if name != "link"}
    trajectory["chains"] = [first | {"base": None, "shared": 0}, first | wrong]
    message = refusal(json.dumps(trajectory).encode(), "trajectory/2", Trajectory)
    assert message.endswith(f"chain 1: an earlier chain must hold its {wrong['shared']} shared tokens")


def test_a_field_nobody_declared_is_refused_by_name() -> None:
    assert refusal(trace_with(surprise=1)).startswith("trace/1: surprise: ")


@pytest.mark.parametrize("schema", ["trace/1", "trace/17", None])
def test_a_record_of_an_erased_subject_is_erased_whatever_its_bytes_and_schema(schema: str | None) -> None:
    headers = {codec.ERASED_HEADER: "user-a"} | ({codec.SCHEMA_HEADER: schema} if schema else {})
    with pytest.raises(ErasedError, match=f"^{schema}: user-a was erased$"):
        codec.decode(golden("trace.v1.json"), headers, Trace)


def test_a_record_that_is_still_sealed_is_refused_with_the_name_of_its_key() -> None:
    headers = {codec.SCHEMA_HEADER: "trace/1", codec.SEALED_HEADER: "user-a/1-00000000000000aa"}
    with pytest.raises(RecordError, match=r"^trace/1: sealed under user-a/1-0{14}aa, and did not open$"):
        codec.decode(golden("trace.v1.json"), headers, Trace)


def test_content_of_a_refused_record_is_not_in_the_message() -> None:
    assert "secret" not in refusal(trace_with(reply_text={"secret": 1}))

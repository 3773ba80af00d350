"""The dictionaries: files of the package that stay as they were, without anybody's words."""

import hashlib
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import histories
import pytest
import skeletons

from ingest.records import codec, dictionaries

ROOT = Path(__file__).parents[3]
DIGESTS = {1: "6b7a178f7c3efea9486779878a3a2d08ae8d0119a2fd320325acba69f9d1927e"}
WINDOW = 16  # characters in a row: fewer are words that fields and reasons have too


def texts_in(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict | list):
        for part in given.values() if isinstance(given, dict) else given:
            yield from texts_in(part)


def test_a_dictionary_is_for_ever_what_it_was_when_values_were_compressed_with_it() -> None:
    found = {number: hashlib.sha256(dictionaries.path(number).read_bytes()) for number in dictionaries.NUMBERS}
    assert {number: digest.hexdigest() for number, digest in found.items()} == DIGESTS
    assert {number: one.dict_id() for number, one in dictionaries.load().items()} == {one: one for one in DIGESTS}


def test_every_dictionary_is_a_file_of_the_package_and_is_listed() -> None:
    folder = dictionaries.path(1).parent
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        file.name for file in folder.iterdir() if any(fnmatch(file.name, one) for one in patterns["ingest.records"])
    }
    assert packed == {dictionaries.path(number).name for number in dictionaries.NUMBERS}


@pytest.mark.parametrize("number", dictionaries.NUMBERS)
def test_a_dictionary_holds_none_of_the_texts_that_it_is_measured_on(number: int) -> None:
    held = dictionaries.path(number).read_bytes().decode("ascii", "replace").lower()
    texts = list(texts_in(histories.domains()))
    assert len(texts) > 300
    pieces = {text.lower()[at : at + WINDOW] for text in texts for at in range(len(text) - WINDOW + 1)}
    assert {piece for piece in pieces if piece in held} == set()


def test_what_it_is_trained_on_is_every_kind_of_record_the_same_each_time() -> None:
    drawn = [record.model_dump_json() for record in skeletons.records(20)]
    assert drawn == [record.model_dump_json() for record in skeletons.records(20)]
    kinds = {record.SCHEMA for record in skeletons.records(20)}
    assert kinds == {"trace", "trajectory", "reward", "fate", "feedback", "release", "version"}


def test_records_that_a_dictionary_was_not_trained_on_are_smaller_by_a_fifth_with_it() -> None:
    plain = [record.model_dump_json().encode() for record in skeletons.records(20, seed=7)]
    small = [one for one in plain if len(one) < codec._LARGE_BYTES]
    without = sum(len(codec._zstd.compressor_of_large.compress(one)) for one in small)
    assert sum(len(codec.packed(one)) for one in small) < 0.8 * without

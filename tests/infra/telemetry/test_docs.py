from pathlib import Path

import pytest

from infra.telemetry.__main__ import tables
from infra.telemetry.names import SCHEMA

DOCS = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()


@pytest.mark.parametrize("title", ["Spans", "Metrics", "Attributes"])
def test_the_document_has_the_tables_of_names_as_they_are(title: str) -> None:
    assert f"### {title}\n\n{tables()[title]}\n" in DOCS


def test_the_document_names_the_conventions_that_names_are_of() -> None:
    assert SCHEMA in DOCS

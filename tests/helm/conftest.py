from functools import cache
from typing import Any

import pytest
from chartcheck import render
from chartcheck.render import Manifest
from charts import Rendered


@cache
def _rendered(name: str) -> list[Manifest]:
    return render.render(render.cases()[name])


@pytest.fixture(scope="session")
def rendered() -> Rendered:
    """A case of `render.cases()` by name, rendered once; with values over it, rendered for this test. Not to change."""

    def of(name: str = "defaults", overlay: dict[str, Any] | None = None) -> list[Manifest]:
        return render.render(render.cases()[name], overlay) if overlay else _rendered(name)

    return of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case` runs for every example and every variant."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(render.cases()))

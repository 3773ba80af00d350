from collections.abc import Iterator

import pytest
from told import Told, telling


@pytest.fixture
def told() -> Iterator[Told]:
    """Telemetry on, for this test alone."""
    with telling() as held:
        yield held

from pathlib import Path

import pytest
from chartwatch import debian


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own checker, fetched once where it is not installed."""
    if not debian.can_have():
        pytest.skip("needs promtool: not on PATH, and no apt to fetch Debian's with")
    return debian.promtool()

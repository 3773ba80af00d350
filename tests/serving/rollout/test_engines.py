"""What the rollout makes of what engines, or whoever answers in their place, say."""

import httpx
import pytest

from infra.config import EngineSlot
from infra.errors import ControlError
from serving.rollout.engines import EngineControl

SLOT = EngineSlot(id="s", arm="stable", port=1, control_port=2)


def answering(status: int, text: str) -> EngineControl:
    """An engine whose ports both answer so."""
    engine = EngineControl(SLOT, "m", "t")
    engine.close()
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, text=text))
    engine._control = engine._users = httpx.Client(base_url="http://e", transport=transport)
    return engine


FOREIGN = [(500, "Internal Server Error"), (502, "<html>bad gateway</html>"), (200, "hello"), (200, "[]"), (200, "{}")]


@pytest.mark.parametrize(("status", "text"), FOREIGN)
def test_an_answer_that_is_no_engines_is_no_status_no_load_and_no_probe(status: int, text: str) -> None:
    engine = answering(status, text)
    assert engine.status() is None
    with pytest.raises(httpx.TransportError, match=f"s: a load was answered with {status}"):
        engine.load(1, epoch=1)
    with pytest.raises(ControlError, match="s: a probe completion failed"):
        engine.probe()
    engine.close()


def test_an_engine_that_refuses_gives_its_reason() -> None:
    engine = answering(409, '{"error": "version 1 did not load", "version": 0}')
    with pytest.raises(ControlError, match="s: version 1 did not load"):
        engine.load(1, epoch=1)
    engine.close()

"""What is kept from a vLLM without an accelerator."""

import logging
import os
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine.cpu import compile_nothing, without_seeds


async def echo(prompt: Any, sampling_params: Any, request_id: str, **rest: Any) -> AsyncGenerator[Any, None]:
    yield prompt, sampling_params.seed, request_id, rest


async def heard(seed: int | None) -> Any:
    params = SimpleNamespace(seed=seed)
    (output,) = [output async for output in without_seeds(echo)("prompt", params, "r1", priority=3)]
    return output


async def test_a_seed_never_reaches_the_engine_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert await heard(seed=7) == ("prompt", None, "r1", {"priority": 3})
    assert "request r1: `seed` is ignored on a CPU" in caplog.text


async def test_nothing_is_said_of_requests_without_a_seed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert (await heard(seed=None))[1] is None
    assert caplog.text == ""


@pytest.mark.parametrize(("given", "then"), [(None, "1"), ("0", "0")])
def test_nothing_is_compiled_unless_somebody_said_so(
    monkeypatch: pytest.MonkeyPatch, given: str | None, then: str
) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", given or "")
    if given is None:
        monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    compile_nothing()
    assert os.environ["TORCH_COMPILE_DISABLE"] == then

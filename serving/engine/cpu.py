"""What vLLM 0.32 cannot do without an accelerator, kept from ending an engine that serves."""

import logging
import os
from collections.abc import AsyncGenerator
from typing import Any

from serving.engine.capture import Generate

logger = logging.getLogger(__name__)


def compile_nothing() -> None:
    """Have the processes that vLLM starts from now on compile no kernel of torch's.

    The first request whose log-probabilities are wanted, so the first at all, would wait for a C++ compiler, for a good
    part of a minute beside other work, and where there is none, as in our images, it would end the engine's core.
    """
    os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")


def without_seeds(generate: Generate) -> Generate:
    """`generate` for engines on a CPU, where a request's `seed` is ignored, with a line in the log.

    A prompt that is computed in several pieces, as a long one is or one of many at a time, draws a token for each and
    sets the request's generator back afterwards; CPU generators cannot be set back, and the engine's core ends.
    """

    async def unseeded(prompt: Any, sampling_params: Any, request_id: str, **rest: Any) -> AsyncGenerator[Any, None]:
        if sampling_params.seed is not None:
            logger.warning("request %s: `seed` is ignored on a CPU", request_id)
            sampling_params.seed = None
        async for output in generate(prompt, sampling_params, request_id, **rest):
            yield output

    return unseeded

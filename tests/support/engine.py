"""A real vLLM engine in this process, as `serving.engine.process` runs one, with no broker and no store behind it.

    async with scoring_engine(folder) as running:
        likelihoods = running.likelihoods()          # rewards.summary.engines.EngineLikelihoods of its scoring port
        await running.load(other_folder)             # other weights of the same model, by the swap of serving
        ...                                          # running.url/v1/chat/completions is what users have

vLLM spawns processes: call it under `if __name__ == "__main__"`, or from a test. The start takes about 50 s and
3.7 GB. Set nothing in the environment before; vLLM must not have been imported.
"""

import asyncio
import contextlib
import copy
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import MODEL
from ports import free_ports
from upstreams import serving as serving_on

from infra.config import Config, EngineSlot
from ingest.privacy.intake import Intake
from rewards.summary.engines import EngineLikelihoods
from serving.engine import loader
from serving.engine.capture import Capture
from serving.engine.idle import Users
from serving.engine.process import scoring_application, users_application, vllm_args, vllm_environment
from serving.engine.recent import Recent
from serving.engine.vocabulary import Vocabulary
from serving.spool import Spool

NAME = "smollm2"


@dataclass
class RunningEngine:
    """`url` is the users' server (without `/v1`), `scoring_url` the scorers', who need `token`."""

    url: str
    scoring_url: str
    token: str
    model: str
    llm: Any
    capture: Capture
    users: Users

    def likelihoods(self, timeout_s: float = 600.0) -> EngineLikelihoods:
        """A client of the scoring port; `await` its `close` in the end."""
        return EngineLikelihoods([self.scoring_url], self.token, timeout_s)

    async def load(self, folder: Path) -> int:
        """Serve the weights of a Hugging Face folder from now on; the version number that they got."""
        version = self.capture.version + 1
        await self.llm.pause_generation(mode="keep", clear_cache=False)
        try:
            await loader._replace(self.llm, folder, version)
        finally:
            self.capture.version = version
            self.capture.epoch += 1
            await self.llm.resume_generation()
        return version


@asynccontextmanager
async def scoring_engine(
    folder: Path = MODEL,
    *,
    cpus: str | None = None,
    max_model_len: int = 2048,
    extra_args: tuple[str, ...] = (),
) -> AsyncIterator[RunningEngine]:
    """An engine on a model folder, for the length of a block. `cpus` as VLLM_CPU_OMP_THREADS_BIND takes them."""
    with tempfile.TemporaryDirectory() as scratch:
        config, slot = _configuration(Path(scratch), folder, cpus, max_model_len, extra_args)
        os.environ.update({"VLLM_LOGGING_LEVEL": "WARNING"} | vllm_environment(config, slot))
        from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client

        args = vllm_args(config, slot, folder)
        async with build_async_engine_client(args) as llm:
            await llm.update_weight_version("0")
            spool = Spool(Path(scratch) / "spool", 1 << 30, 1 << 24)
            pieces = Vocabulary(copy.deepcopy(llm.get_tokenizer()))
            capture = Capture(spool, slot.id, 0, Recent(1 << 20, 900.0), Intake.of(config), pieces)
            users = Users()
            llm.generate = capture.wrap(llm.generate)
            token = "token-of-the-tests"
            scoring = scoring_application(args, llm, capture, users, token)
            assert slot.scoring_port is not None
            async with (
                serving_on(await users_application(args, llm, capture, users), slot.port),
                serving_on(scoring, slot.scoring_port),
            ):
                url, scoring_url = (f"http://{slot.host}:{port}" for port in (slot.port, slot.scoring_port))
                yield RunningEngine(url, scoring_url, token, NAME, llm, capture, users)
            spool.close()


def _configuration(
    scratch: Path, folder: Path, cpus: str | None, max_model_len: int, extra_args: tuple[str, ...]
) -> tuple[Config, EngineSlot]:
    users, controls, scorers, other, other_controls = free_ports(5)
    slots = [
        {"id": "e0", "arm": "stable", "port": users, "control_port": controls, "scoring_port": scorers, "cpus": cpus},
        {"id": "e1", "arm": "candidate", "port": other, "control_port": other_controls},
    ]
    engine = {"max_model_len": max_model_len, "extra_args": extra_args}
    given = {
        "run_dir": str(scratch),
        "model": {"path": str(folder), "name": NAME},
        "serving": {"engines": slots, "engine": engine},
    }
    config = Config.model_validate(given)
    return config, config.serving.engines[0]


if __name__ == "__main__":

    async def show() -> None:
        async with scoring_engine() as running:
            print(running.url, running.scoring_url, running.token, flush=True)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    asyncio.run(show())

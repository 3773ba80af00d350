"""One engine: vLLM's own OpenAI server in this process, capture around it, a control and a scoring port beside it."""

import asyncio
import contextlib
import copy
import json
import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from infra import health
from infra.config import Config, EngineSlot
from infra.errors import StartError
from infra.lifecycle import Pulse, Stop
from infra.telemetry.providers import PROTOCOL, otlp_traces
from ingest.log.connect import connect
from ingest.privacy.intake import Intake
from ingest.store.versions import VersionStore
from serving.engine import control, scoring
from serving.engine.capture import Capture, CaptureMiddleware, answer_with_trace_ids
from serving.engine.cpu import compile_nothing, without_seeds
from serving.engine.idle import Users, UsersMiddleware
from serving.engine.loader import Loader
from serving.engine.recent import Recent
from serving.engine.vocabulary import Vocabulary
from serving.engine.wanted import Wanted, first_version
from serving.engine.weights import BACKEND
from serving.guard import control_token, scoring_token
from serving.ports import require_free
from serving.spool import Shipper, Spool

_LOOK_S = 0.2

logger = logging.getLogger(__name__)


async def serve(config: Config, slot: EngineSlot, token: str, scorers_token: str) -> None:
    """Serve until SIGTERM. `token` is for the control port, `scorers_token` for the scoring port, if there is one.

    Once asked to end it takes no new request, finishes its replies within `serving.engine.drain_s`, and ships what it
    captured as far as the broker lets it; what is left ships at the next start.

    Raises:
        StartError: a port is taken.
        StoreError: the version to start with cannot be fetched.
    """
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.platforms import current_platform

    host = config.serving.bound(slot)
    for port in slot.ports:
        require_free(host, port, slot.id)
    stop = Stop()
    health.serve(config.health, stop.pulse, lambda: wanted.trouble(loader.serving.version))  # asked once both are there
    copies = Path(config.store.cache_dir) / slot.id
    store = VersionStore.of(config.store, copies=copies)
    open_log = partial(connect, config, client_id=slot.id)
    manifest = store.read(first_version(open_log, slot.id, copies))
    folder = store.fetch(manifest, copies)
    intake = Intake.of(config)
    spool = Spool(
        Path(config.serving.capture.spool_dir) / slot.id,
        config.serving.capture.max_spool_bytes,
        config.serving.capture.segment_bytes,
    )
    shipper = Shipper(spool, open_log, stop)
    shipper.start()
    wanted = Wanted(slot.id, manifest.version)
    if config.health.port is not None:
        threading.Thread(target=wanted.follow, args=(open_log, stop), name="wanted", daemon=True).start()
    args = vllm_args(config, slot, folder)
    if current_platform.is_cpu():
        compile_nothing()
    async with build_async_engine_client(args) as engine:
        await engine.update_weight_version(str(manifest.version))
        recent = Recent(config.serving.capture.recent_bytes, config.ingest.inactivity_s)
        pieces = Vocabulary(copy.deepcopy(engine.get_tokenizer()))  # vLLM's own serves another thread
        capture = Capture(spool, slot.id, manifest.version, recent, intake, pieces, config.model.name)
        users = Users()
        if current_platform.is_cpu():
            engine.generate = without_seeds(engine.generate)
        engine.generate = capture.wrap(engine.generate)
        loader = Loader(store, copies, config.store.keep_in_cache, manifest)
        app = control.application(loader, engine, capture, users, slot.id, token)
        beside = [asyncio.create_task(_serve_beside(app, host, slot.control_port))]
        if slot.scoring_port is not None:
            app = scoring_application(args, engine, capture, users, scorers_token)
            beside.append(asyncio.create_task(_serve_beside(app, host, slot.scoring_port)))
        app = await users_application(args, engine, capture, users)
        beside.append(asyncio.create_task(_beat(app, stop.pulse)))
        logger.info("%s: serving version %d on %s:%d", slot.id, capture.version, host, slot.port)
        shutdown = await _serve_users(app, host, slot.port, config.serving.engine.drain_s)
        for task in beside:
            task.cancel()
    await shutdown
    await asyncio.to_thread(shipper.finish, 5.0)


def scoring_application(args: Any, engine: Any, capture: Capture, users: Users, token: str) -> Starlette:
    """The scoring port of `engine`, whose `generate` `capture` has wrapped."""
    from vllm.renderers.chat_utils import load_chat_template

    from serving.engine.vllm_model import VllmModel

    model = VllmModel(engine, load_chat_template(args.chat_template))
    return scoring.application(scoring.Scoring(model, capture, users), token)


async def users_application(args: Any, engine: Any, capture: Capture, users: Users) -> Any:
    """vLLM's own application with capture around it, and a count of who is in it around that."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    tasks = await engine.get_supported_tasks()
    app = build_app(args, tasks, engine.model_config)
    # vLLM hands its application over with the middleware built, which `add_middleware` refuses to extend
    inner = app.middleware_stack or app.build_middleware_stack()
    app.middleware_stack = UsersMiddleware(CaptureMiddleware(inner, capture), users)
    await init_app_state(engine, app.state, args, tasks)
    answer_with_trace_ids(app.state.openai_serving_responses)
    return app


async def _serve_users(app: Any, host: str, port: int, drain_s: int) -> Any:
    from vllm.entrypoints.launchers.launcher import serve_http

    return await serve_http(
        app,
        sock=None,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=drain_s,
    )


async def _beat(app: Any, pulse: Pulse) -> None:
    """From when users can be served on, beat for as long as the event loop turns."""
    while (server := getattr(app.state, "server", None)) is None or not server.started:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    await health.beat(pulse)


async def _serve_beside(app: Starlette, host: str, port: int) -> None:
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning"))
    with contextlib.suppress(asyncio.CancelledError):
        await server._serve()  # `serve` would take the signal handlers that belong to vLLM's server


def vllm_args(config: Config, slot: EngineSlot, folder: Path) -> Any:
    """vLLM's parsed arguments.

    Raises:
        StartError: `engine.extra_args` holds something vLLM does not know.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    engine = config.serving.engine
    argv = [
        *("--model", str(folder), "--served-model-name", config.model.name),
        *("--host", config.serving.bound(slot), "--port", str(slot.port)),
        *("--shutdown-timeout", str(engine.drain_s)),
        *("--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs)),
        *("--dtype", engine.dtype, "--enforce-eager", "--enable-prefix-caching"),
        *("--weight-transfer-config", json.dumps({"backend": BACKEND})),
        *_tracing(),
        *engine.extra_args,
    ]
    parser = make_arg_parser(FlexibleArgumentParser())
    try:
        args = parser.parse_args(argv)
        validate_parsed_serve_args(args)
    except (SystemExit, ValueError, TypeError) as exc:
        raise StartError(f"serving.engine.extra_args: vLLM refuses {list(engine.extra_args)}: {exc}") from exc
    return args


def _tracing() -> tuple[str, ...]:
    """Where vLLM sends its own spans, of every request: to where ours go by OTLP."""
    where = otlp_traces(os.environ)
    return ("--otlp-traces-endpoint", where) if where else ()


def vllm_environment(config: Config, slot: EngineSlot) -> dict[str, str]:
    """What vLLM reads from the environment before it is imported."""
    wanted = {
        "VLLM_CPU_KVCACHE_SPACE": str(config.serving.engine.kv_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": os.environ.get("VLLM_CONFIGURE_LOGGING", "1"),
    }
    if otlp_traces(os.environ):
        wanted["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = PROTOCOL  # vLLM's own default is gRPC
        wanted["OTEL_SERVICE_NAME"] = os.environ.get("OTEL_SERVICE_NAME", "onstream-engine")  # of its other processes
    if slot.cpus is not None:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = slot.cpus
    return wanted


def run(config: Config, engine_id: str) -> None:
    """Run the engine `engine_id` of the configuration, until SIGTERM.

    Raises:
        StartError: there is no such engine, or no credential for one of its ports.
    """
    token = control_token()
    slots = {slot.id: slot for slot in config.serving.engines}
    if engine_id not in slots:
        raise StartError(f"engine {engine_id!r}: the configuration has {', '.join(slots)}")
    slot = slots[engine_id]
    scorers_token = scoring_token() if slot.scoring_port is not None else ""
    os.environ.update(vllm_environment(config, slot))
    asyncio.run(serve(config, slot, token, scorers_token))

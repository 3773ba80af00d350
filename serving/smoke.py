"""`onstream smoke`: one request through the whole loop, followed to its trace and its reward. `helm test` runs it.

The request is a side turn with consent: it is captured and its session is scored, and it never trains.
"""

import argparse
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing

import httpx

from infra import cli
from infra.config import Config
from infra.errors import OnstreamError
from infra.lifecycle import Deadline
from ingest.log.protocol import EventLog, Positions
from ingest.log.reader import Follower
from ingest.log.topics import REWARDS, TRACES
from ingest.records.events import SESSION_END, Record, Reward, Trace, TurnKind
from serving import headers

API_KEY_VAR = "ONSTREAM_API_KEY"
_POLL_S = 0.5
_PROMPT = "Answer with one word: is this line working?"


class SmokeError(OnstreamError, RuntimeError):
    """The request did not come through the loop; the message says how far it came."""


def smoke(config: Config, log: EventLog, client: httpx.Client, timeout_s: float) -> Iterator[str]:
    """Send the request and follow it; a line for each thing that was seen.

    Raises:
        SmokeError: the router refused something, or trace or reward did not come in time.
        LogError: no broker answers.
    """
    deadline = Deadline.after(timeout_s)
    begin = {(topic.name, part): end for topic in (TRACES, REWARDS) for part, end in log.ends(topic.name).items()}
    session = f"smoke-{uuid.uuid4().hex}"
    answer = _post(
        client,
        "/v1/chat/completions",
        {"model": config.model.name, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 8},
        {headers.SESSION: session, headers.TURN: TurnKind.SIDE.value, headers.CONSENT: "yes"},
    )
    trace_id = answer.headers[headers.TRACE]
    yield f"the router answered: trace {trace_id}"
    _post(client, "/v1/feedback", {"session": session, "name": SESSION_END, "value": 0.0}, {headers.CONSENT: "yes"})
    yield from _follow(log, begin, trace_id, deadline)


def _post(client: httpx.Client, path: str, body: Mapping[str, object], more: Mapping[str, str]) -> httpx.Response:
    try:
        answer = client.post(path, json=body, headers=dict(more))
    except httpx.HTTPError as exc:
        raise SmokeError(f"POST {path}: the router at {client.base_url} does not answer: {exc}") from exc
    if not answer.is_success:
        raise SmokeError(f"POST {path}: must succeed, got {answer.status_code}: {answer.text:.300}")
    return answer


def _follow(log: EventLog, begin: Positions, trace_id: str, deadline: Deadline) -> Iterator[str]:
    """Both records, in whatever order they are read: they lie on different topics."""
    lacking = ["trace", "reward"]
    follower = Follower(log, (TRACES, REWARDS), begin)
    with closing(follower):
        while lacking:
            if deadline.passed():
                raise SmokeError(f"trace {trace_id}: no {' and no '.join(lacking)} on the log in time")
            for record in follower.poll(min(_POLL_S, deadline.left_s())):
                if (seen := _about(record, trace_id)) in lacking:
                    lacking.remove(seen)
                    yield f"its {seen} is on the log{_told(record)}"


def _about(record: Record, trace_id: str) -> str | None:
    if isinstance(record, Trace) and record.trace_id == trace_id:
        return "trace"
    return "reward" if isinstance(record, Reward) and trace_id in record.trace_ids else None


def _told(record: Record) -> str:
    if isinstance(record, Trace):
        return f": {len(record.token_ids)} tokens by {record.engine_id}"
    return f": {record.value:.3f} by {record.spec}" if isinstance(record, Reward) else ""


def main(argv: list[str]) -> int:
    """The command. Exit status 0: the request came through the whole loop."""
    about = "Send one request, which never trains, and follow it to its trace and its reward."
    parser = argparse.ArgumentParser(prog="onstream smoke", description=about)
    cli.add_config(parser)
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="for all of it (%(default)s)")
    args = parser.parse_args(argv)

    def run(config: Config) -> None:
        from ingest.log.connect import connect

        key = os.environ.get(API_KEY_VAR, "")
        bearer = {"authorization": f"Bearer {key}"} if key else {}
        url = f"http://{config.serving.router.host}:{config.serving.router.port}"
        log = connect(config, client_id="smoke")
        with (
            closing(log),
            httpx.Client(base_url=url, headers=bearer, timeout=args.timeout) as client,
        ):
            for line in smoke(config, log, client, args.timeout):
                print(line, flush=True)

    return cli.guarded(args.config, run, verbose=False)

"""A process that shows a few metrics, as its variables say, until it is ended."""

import signal
import sys

from prometheus_client import Gauge

from infra import telemetry
from infra.telemetry import metrics, names


def main() -> None:
    telemetry.setup("router", sys.argv[1])
    telemetry.count(metrics.TRACES_DROPPED)
    telemetry.count(metrics.REWARDS_MADE, 1, {names.HAS_SIGNAL: True})
    Gauge("vllm:num_requests_waiting", "In vLLM's registry, which is ours too.").set(2)
    telemetry.observe(metrics.CANDIDATE_SHARE, lambda: 0.1)
    telemetry.observe(metrics.ENGINE_UP, lambda: [(1, {names.ENGINE: "stable-0"})])
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()

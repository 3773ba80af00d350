"""`onstream up --watch`: Prometheus beside the system, with the chart's alert rules, all on 127.0.0.1.

    <run_dir>/prometheus/prometheus.yml     which ports are scraped, and the rules
    <run_dir>/prometheus/data               what was scraped

Every process gets a port for its metrics. An engine shows vLLM's metrics at the same port: both are in one registry.
"""

import contextlib
import dataclasses
import http.client
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.errors import StartError
from infra.process import ProcessSpec

HOST = "127.0.0.1"
NAME = "prometheus"
_CHECKOUT = Path(__file__).resolve().parents[1]
_FETCHED = _CHECKOUT / ".onstream" / "tools" / "prometheus"
_RULES = _CHECKOUT / "helm" / "onstream" / "rules"
_METRICS_FROM, _PROMETHEUS_FROM = 9464, 9090
_BELOW = 32_768  # from here on the kernel gives ports to whoever asks for any
_INTERVAL = "5s"
HOW_TO_GET = (
    "--watch: prometheus is neither on PATH nor in .onstream/tools: nothing watches, and everything else starts. "
    "Get it with `make tools` (from Debian's packages, not installed) or `apt-get install prometheus`"
)


@dataclasses.dataclass(frozen=True)
class Watch:
    """What watches: `ports` are those of each process's metrics."""

    binary: Path
    port: int
    ports: Mapping[str, int]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def metrics_url(self, name: str) -> str | None:
        """Where a process shows its metrics; `None` for one that does not."""
        return f"http://{HOST}:{self.ports[name]}/metrics" if name in self.ports else None

    def told(self) -> str:
        """Where to look, for people, once it is ready."""
        pages = {"targets": "/targets", "alerts": "/alerts", "graphs": f"/graph?{_FIRST_LOOK}"}
        above = _above(self.port)
        lines = [f"  {about:8} {self.url}{above}{path}" for about, path in pages.items()]
        if not _RULES.is_dir():
            lines.append("  no alerts: their rules lie in a checkout, helm/onstream/rules")
        return "\n".join(lines)


_VLLM = {
    "source_labels": ["__name__"],
    "regex": "vllm_(.+)",
    "target_label": "__name__",
    "replacement": "vllm:$1",
}
"""prometheus_client takes the colon out of vLLM's names for a Prometheus before 3, which asks for OpenMetrics."""
_FIRST_LOOK = "g0.expr=onstream_release_engine_version&g0.tab=0&g0.range_input=1h"


def _above(port: int) -> str:
    """What stands before the names of its pages: Debian's are below /classic. The first page is where `/` leads."""
    try:
        with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=1.0)) as asked:
            asked.request("GET", "/")
            return (asked.getresponse().getheader("Location") or "").rpartition("/")[0]
    except (OSError, http.client.HTTPException):
        return ""


def find() -> Path | None:
    """Prometheus: on PATH, or where `make tools` puts it."""
    on_path = shutil.which("prometheus")
    fetched = _FETCHED / "usr" / "bin" / "prometheus"
    return Path(on_path) if on_path else fetched if fetched.exists() else None


def plan(binary: Path, names: Iterable[str], taken: Iterable[int] = ()) -> Watch:
    """Ports for the metrics of every process, and for Prometheus; none of `taken`.

    Raises:
        StartError: there are not enough free ports.
    """
    held = set(taken)
    ports = {}
    for name in names:
        ports[name] = _free_port(_METRICS_FROM, held)
        held.add(ports[name])
    return Watch(binary, _free_port(_PROMETHEUS_FROM, held), ports)


def _free_port(first: int, held: set[int]) -> int:
    for port in range(first, _BELOW):
        if port in held:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise StartError(f"--watch: no port of {HOST} from {first} on is free")


def measured(spec: ProcessSpec, watch: Watch, environ: Mapping[str, str] = os.environ) -> ProcessSpec:
    """A process that shows its metrics at its port, beside what `environ` already asks of them."""
    from infra.telemetry.providers import exporters

    asked = dict.fromkeys([*exporters(environ, "METRICS"), "prometheus"])
    told = {
        "OTEL_METRICS_EXPORTER": ",".join(asked),
        "OTEL_EXPORTER_PROMETHEUS_HOST": HOST,
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(watch.ports[spec.name]),
    }
    return dataclasses.replace(spec, env={**spec.env, **told})


def scrape(watch: Watch, rules: Path = _RULES) -> dict[str, Any]:
    """Prometheus's configuration. A target is called by its process, not by its port."""
    targets = [
        {"targets": [f"{HOST}:{port}"], "labels": {"instance": name}} for name, port in sorted(watch.ports.items())
    ]
    return {
        "global": {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL},
        "rule_files": [str(rules / "*.yaml")],
        "scrape_configs": [{"job_name": "onstream", "static_configs": targets, "metric_relabel_configs": [_VLLM]}],
    }


def process(watch: Watch, run_dir: Path) -> ProcessSpec:
    """Prometheus as a process, its configuration written."""
    home = (run_dir / NAME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape(watch), sort_keys=False))
    argv = [
        str(watch.binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={HOST}:{watch.port}",
        "--log.level=warn",
    ]
    if watch.binary.is_relative_to(_FETCHED):  # Debian's looks for its pages where they would be installed
        argv.append(f"--web.local-assets={_FETCHED / 'usr' / 'share' / 'prometheus' / 'web'}/")
    return ProcessSpec(NAME, tuple(argv), ready_url=f"{watch.url}/-/ready")

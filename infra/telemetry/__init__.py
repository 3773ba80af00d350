"""OpenTelemetry: traces, metrics and logs of every process; off unless a standard `OTEL_*` variable asks for it.

`names` and `metrics` hold every name, `setup` (in `providers`) switches it on. It carries ids, counts and durations,
never content.
"""

from infra.telemetry.instruments import count as count
from infra.telemetry.instruments import gauge as gauge
from infra.telemetry.instruments import is_measuring as is_measuring
from infra.telemetry.instruments import observe as observe
from infra.telemetry.instruments import record as record
from infra.telemetry.instruments import record_now as record_now
from infra.telemetry.logs import Local as Local
from infra.telemetry.providers import setup as setup
from infra.telemetry.spans import context_in as context_in
from infra.telemetry.spans import current as current
from infra.telemetry.spans import failed as failed
from infra.telemetry.spans import headers_out as headers_out
from infra.telemetry.spans import is_tracing as is_tracing
from infra.telemetry.spans import span as span

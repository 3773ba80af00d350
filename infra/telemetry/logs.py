"""Log lines over OTLP, each with the trace that it was written in.

What a client or a scorer has worded, such as a session's name, is `Local` where it is logged: it stays in the process's
own log. An exception in a line is sent as its class: its message may hold what was refused.

The SDK's own handler (deprecated) and that of `opentelemetry-instrumentation-logging` send an exception's message and
its whole stack trace, where a refused record's text would stand. This one sends the exception's class and where it was
raised. It hears our own packages only: other libraries' lines stay in the process's log.
"""

import logging
import traceback

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.trace import set_span_in_context

from infra.telemetry.names import SCHEMA_URL
from infra.telemetry.spans import around

PACKAGES = ("infra", "ingest", "rewards", "serving", "trainer")
_KEPT = "(kept local)"
_SEVERITIES = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class Local(str):
    """Text for the process's own log alone."""


class OtlpHandler(logging.Handler):
    """Gives log records to a provider."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        severity = _SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED)
        told: dict[str, str | int] = {"code.function.name": record.funcName or "", "code.line.number": record.lineno}
        if record.exc_info and record.exc_info[0] is not None:
            told["exception.type"] = record.exc_info[0].__qualname__
            told["exception.stacktrace"] = "".join(traceback.format_tb(record.exc_info[2]))
        within = around()
        self._provider.get_logger(record.name, schema_url=SCHEMA_URL).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=None if within is None else set_span_in_context(within),
                severity_number=severity,
                severity_text=severity.name,
                body=_told(record),
                attributes=told,
            )
        )


def _told(record: logging.LogRecord) -> str:
    """A line without its local text."""
    if isinstance(record.args, tuple) and record.args:
        return str(record.msg) % tuple(_shown(one) for one in record.args)
    return record.getMessage()


def _shown(given: object) -> object:
    if isinstance(given, Local):
        return _KEPT
    return type(given).__qualname__ if isinstance(given, BaseException) else given


def attach(provider: LoggerProvider) -> None:
    """Send what our packages log to `provider`."""
    handler = OtlpHandler(provider)
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)

"""What telemetry hears of a request at the router's door, and when."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from told import telling

from infra.telemetry import metrics
from serving.requests import Endpoint


async def answer(_request: Request) -> Response:
    return PlainTextResponse("as you asked", 201)


def test_a_request_is_told_once_it_is_answered_without_waiting_for_a_thread() -> None:
    with telling() as told:
        assert TestClient(Endpoint(answer, is_telling=True)).get("/v1/models").status_code == 201
        (span,) = told.exporter.get_finished_spans()
        assert (span.name, dict(span.attributes or {})["http.response.status_code"]) == ("GET /v1/models", 201)
        assert told.value(metrics.REQUEST_DURATION, status_code=201).count == 1


def test_nothing_is_told_where_nobody_listens() -> None:
    with telling() as told:
        TestClient(Endpoint(answer, is_telling=False)).get("/v1/models")
        assert told.spans == ()

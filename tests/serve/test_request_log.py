"""The log of the server, the ids in it, and readiness."""

import json
import logging
import re
import signal
import sys

import httpx
import pytest

from nearfar.serve import answers, create_app, request_log
from served import asking, post, process, refuses, serving, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = {"X-Request-ID": "order-7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture
def records():
    """The records that the server writes."""
    kept = []
    handler = logging.Handler()
    handler.emit = kept.append
    handler.addFilter(request_log.with_ids)
    logger = logging.getLogger("nearfar.serve")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_the_answer_and_the_record_have_the_ids_that_were_sent(saved_model, records):
    with serving(create_app(saved_model)) as client:
        answer = client.get("/v1/search?q=x", headers=SENT)
        until(lambda: records)
    (record,) = records
    assert answer.headers["x-request-id"] == record.request_id == "order-7"
    assert answer.headers["traceparent"] == f"00-{TRACE}-{record.span_id}-01"
    assert (record.trace_id, record.trace_flags) == (TRACE, "01")
    assert (record.method, record.path, record.status) == ("GET", "/v1/search", 200)
    assert record.levelname == "INFO"
    assert 0 < record.ms < 60_000


def test_every_answer_has_ids_also_errors(saved_model, records, monkeypatch):
    def fault(*asked):
        raise ZeroDivisionError

    monkeypatch.setattr(answers, "found", fault)
    with serving(create_app(saved_model, max_body=10)) as client:
        for path, status in (("/health", 200), ("/none", 404), ("/v1/search?q=x", 500)):
            answer = client.get(path, headers=SENT)
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "order-7")
            assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
        answer = client.post("/v1/recommend", content=b"x" * 11)
        assert (answer.status_code, len(answer.headers["x-request-id"])) == (413, 32)
        until(lambda: len(records) == 4)
    assert [(one.status, one.levelname) for one in records] == [
        (200, "INFO"), (404, "INFO"), (500, "ERROR"), (413, "INFO")
    ]  # fmt: skip


def test_the_version_changes_with_a_reload(saved_model, records):
    app = create_app(saved_model)
    before = app.state.endpoints.holder.current
    version = f"{before.model.fingerprint[:12]}@"
    with serving(app) as client:
        assert client.get("/readyz").json()["model_version"] == before.version
        until(lambda: records)
    assert records[0].model_version == before.version
    assert re.fullmatch(re.escape(version) + r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", before.version)


def test_json_lines_are_one_object_each(saved_model, records):
    with serving(create_app(saved_model)) as client:
        client.get('/no"\u2028ne%0a', headers=SENT)
        until(lambda: records)
    line = request_log.JsonLines().format(records[0])
    told = json.loads(line)
    assert "\n" not in line
    assert list(told) == ["time", "level", "message", *request_log.FIELDS]
    assert told["path"] == '/no"\u2028ne\n'
    assert "\n" not in request_log.TextLines().format(records[0])


def test_an_exception_is_in_the_line():
    try:
        raise ZeroDivisionError("what")
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "a %s", ("b",), sys.exc_info())
    told = json.loads(request_log.JsonLines().format(record))
    assert (told["level"], told["message"]) == ("error", "a b")
    assert told["exception"].endswith("ZeroDivisionError: what")
    assert request_log.TextLines().format(record).endswith("ZeroDivisionError: what")


def test_a_process_writes_json_only(model_folder):
    with process(model_folder, "--log-format", "json") as (running, url), asking(url) as client:
        post(client, "/v1/recommend", user=3)
        told = json.loads(running.stderr.readline())
        assert (told["path"], told["status"], told["level"]) == ("/v1/recommend", 200, "info")
        client.get("/health", headers=SENT)
        assert json.loads(running.stderr.readline())["request_id"] == "order-7"
        running.send_signal(signal.SIGHUP)
        assert json.loads(running.stderr.readline())["message"].startswith("reloaded: ")
        running.terminate()
        assert running.wait(20) == 0
        assert running.stderr.read() == ""


def test_a_process_writes_text(saved_model):
    with process(saved_model, "--log-format", "text") as (running, url):
        httpx.get(f"{url}health", headers=SENT)
        line = running.stderr.readline()
        assert " INFO GET /health 200 ms=" in line
        assert f"request_id=order-7 trace_id={TRACE} model_version=" in line


def test_it_is_alive_but_not_ready_while_it_drains(saved_model):
    with process(saved_model, "--drain", "3") as (running, url):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        assert httpx.get(f"{url}readyz").json()["status"] == "ready"
        running.terminate()
        until(lambda: httpx.get(f"{url}readyz").status_code == 503)
        assert httpx.get(f"{url}readyz").json()["error"]["type"] == "NotReady"
        assert httpx.get(f"{url}healthz").json() == {"status": "ok"}
        assert httpx.post(f"{url}v1/recommend", json={"user": 3}).status_code == 200
        assert running.wait(20) == 0
        assert refuses(host, int(port))


def test_a_second_signal_ends_the_draining(saved_model):
    with process(saved_model, "--drain", "600") as (running, url):
        running.terminate()
        until(lambda: httpx.get(f"{url}readyz").status_code == 503)
        running.terminate()
        assert running.wait(20) == 0

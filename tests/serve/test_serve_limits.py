"""What the server does when it is asked too much, too slowly or in a way that has no end."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nearfar.serve import answers, create_app, schemas
from nearfar.serve.limits import Admission, BodyLimit, Deadline
from served import counted, serving, until


class Gate:
    """Takes the place of a handler's work, and holds requests up until it is opened."""

    def __init__(self):
        self.inside, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, *asked):
        self.inside.release()
        assert self.open.wait(20)
        return schemas.FoundItems(results=[])

    def wait_for(self, n):
        for _ in range(n):
            assert self.inside.acquire(timeout=20)


@pytest.fixture
def gate(monkeypatch):
    made = Gate()
    monkeypatch.setattr(answers, "found", made)
    yield made
    made.open.set()


def test_requests_beyond_those_that_wait_are_refused(saved_model, gate):
    app = create_app(saved_model, max_concurrent=1, max_waiting=1, timeout=30)
    with serving(app) as client, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.get, "/v1/search?q=x") for _ in range(2)]
        gate.wait_for(1)
        # the two, and that for the figures itself
        until(lambda: counted(client, "nearfar_requests_in_flight") == 3)
        refused = client.get("/v1/search?q=x")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "TooBusy"
        assert client.get("/health").status_code == 200
        gate.open.set()
        assert [answer.result().status_code for answer in asked] == [200, 200]
        assert client.get("/v1/search?q=x").status_code == 200


def test_a_late_answer_is_given_up(saved_model, gate):
    with serving(create_app(saved_model, max_concurrent=1, timeout=0.2)) as client:
        late = client.get("/v1/search?q=x")
        assert late.status_code == 504
        assert late.json()["error"]["type"] == "TimeoutError"
        assert "0.2 seconds" in late.json()["error"]["message"]
        gate.open.set()
        assert client.get("/v1/search?q=x").status_code == 200


def test_a_client_that_sends_slowly_takes_no_place_and_is_given_up(saved_model):
    with serving(create_app(saved_model, max_concurrent=1, max_waiting=0, timeout=1.0)) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as slow:
            slow.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            assert client.get("/v1/model").status_code == 200
            slow.settimeout(20)
            assert slow.recv(100).startswith(b"HTTP/1.1 504 ")


def run_layer(layer, sends, receives=()):
    """Send one request through a layer of ASGI; give what the client gets."""
    got, coming = [], iter(receives)
    scope = {"type": "http", "path": "/x", "headers": []}

    async def receive():
        return next(coming)

    async def send(message):
        got.append(message)

    async def app(scope, receive, send):
        await sends(receive, send)

    asyncio.run(layer(app)(scope, receive, send))
    return got


def test_an_answer_that_does_not_end_is_cut_off():
    async def sends(receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        run_layer(lambda app: Deadline(app, 0.01, ()), sends)


def test_a_client_that_goes_while_it_sends_gets_no_answer():
    async def sends(receive, send):
        raise AssertionError("the application is not asked")

    chunk = {"type": "http.request", "body": b"x", "more_body": True}
    gone = [chunk, {"type": "http.disconnect"}]
    assert run_layer(lambda app: BodyLimit(app, 10), sends, gone) == []


def test_a_body_comes_to_the_application_whole_and_then_what_follows():
    async def sends(receive, send):
        await send(await receive())
        await send(await receive())

    chunks = [{"type": "http.request", "body": b"ab", "more_body": True},
              {"type": "http.request", "body": b"c"}, {"type": "http.disconnect"}]  # fmt: skip
    got = run_layer(lambda app: BodyLimit(app, 3), sends, chunks)
    assert got[0] == {"type": "http.request", "body": b"abc", "more_body": False}
    assert got[1] == {"type": "http.disconnect"}


def test_layers_let_other_than_http_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    layers = (Deadline(app, 1, ()), BodyLimit(app, 1), Admission(app, 1, 0, ()))
    for layer in layers:
        asyncio.run(layer({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"] * 3

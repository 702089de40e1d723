"""A server behind a real socket, and how tests ask it."""

import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from nearfar.serve import server

TOKEN = "open-sesame"


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def asking(url):
    return httpx.Client(base_url=url, timeout=30)


@contextmanager
def serving(app):
    """A client of an application behind a real server, on a free port."""
    opened = server.open_socket("127.0.0.1", 0)
    url = server.address_of(opened)
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        until(lambda: running.started)
        with asking(url) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join()
        opened.close()


def stripping(app, prefix):
    """What a proxy does that removes the prefix."""

    async def proxied(scope, receive, send):
        if scope["type"] == "http":
            assert scope["path"].startswith(f"{prefix}/")
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await app(scope, receive, send)

    return proxied


def post(client, path, status=200, /, **asked):
    answer = client.post(path, json=asked)
    assert answer.status_code == status, answer.text
    return answer.json()


def ids(answer):
    return [entry["id"] for entry in answer["results"]]


def pairs(answer):
    return [(entry["id"], pytest.approx(entry["score"], abs=1e-6)) for entry in answer["results"]]


def listed(frame, name="item_id"):
    return list(frame.select(name, "score").iter_rows())


def reload(client, token=TOKEN):
    return client.post("/reload", headers={"Authorization": f"Bearer {token}"})


def counted(client, name, **labels):
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None

"""A server behind a real socket, and how tests ask it."""

import os
import socket
import subprocess
import sys
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


@contextmanager
def process(*words, env=None):
    """A server of its own; gives the process, and the address that it printed."""
    command = [sys.executable, "-m", "nearfar", "serve", *map(str, words), "--port", "0"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        line = running.stdout.readline()
        assert "Serving" in line, running.stderr.read()
        yield running, line.split()[-1]
    finally:
        running.kill()
        running.communicate()


def refuses(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


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

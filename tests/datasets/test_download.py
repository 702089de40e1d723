"""Fetching over HTTP, against a server of our own that does everything wrong on demand."""

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nearfar.datasets import download as module
from nearfar.datasets.download import download, download_wheel, verified
from nearfar.errors import SourceError

CONTENT = os.urandom(700_000)
OTHER = os.urandom(650_000)


class Server(ThreadingHTTPServer):
    """Serves `content`; what goes wrong is said by the fields."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.tag = '"one"'
        self.date = None
        self.ranges = True  # understands Range
        self.conditions = True  # understands If-Range
        self.breaks = []  # how many bytes are sent before each connection breaks off
        self.stalls = False  # does not break off, but sends nothing more
        self.pause = 0  # seconds in the middle of the file
        self.statuses = []  # of the first answers; None is a good one
        self.type = "application/zip"
        self.length = True  # says how long the file is
        self.chunked = False
        self.wrong_range = False
        self.asked = []  # (path, Range, If-Range) of every request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file.zip"

    def handle_error(self, *_args):
        pass  # the client hung up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((self.path, wanted, condition))
        assert self.headers["Accept-Encoding"] == "identity"
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", server.url)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.statuses and (status := server.statuses.pop(0)) is not None:
            self.send_error(status)
            return
        start = self._start(wanted, condition)
        if start > len(server.content) or (start and start == len(server.content)):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(start)

    def _start(self, wanted, condition):
        server = self.server
        fits = not server.conditions or condition in {server.tag, server.date}
        if wanted is None or not server.ranges or not fits:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, start):
        server = self.server
        body = server.content[start:]
        if start:
            first = start - 1 if server.wrong_range else start
            self.send_response(206)
            end = len(server.content)
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{end}")
        else:
            self.send_response(200)
        for name, value in (("ETag", server.tag), ("Last-Modified", server.date),
                            ("Content-Type", server.type)):  # fmt: skip
            if value:
                self.send_header(name, value)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        elif server.length:
            self.send_header("Content-Length", str(len(body)))
        self.close_connection = True
        self.end_headers()
        if server.breaks:
            self.wfile.write(body[: server.breaks.pop(0)])
            self.wfile.flush()
            if server.stalls:
                server.let_go.wait(5)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body[:1000])
        server.let_go.wait(server.pause)
        self.wfile.write(body[1000:])

    def log_message(self, *_args):
        pass


@contextmanager
def serving():
    server = Server()
    server.let_go = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.0)
    with serving() as one:
        yield one


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_verified(server, tmp_path):
    target, seen = tmp_path / "file.zip", []
    found = download(server.url, target, size=len(CONTENT),
                     checksum=f"md5:{md5(CONTENT).hexdigest()}",
                     progress=lambda *what: seen.append(what))  # fmt: skip
    assert found == sha256(CONTENT).hexdigest()
    assert target.read_bytes() == CONTENT
    assert left(tmp_path) == ["file.zip"]
    assert {(name, total) for name, _, total in seen} == {("file.zip", len(CONTENT))}
    counts = [done for _, done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == len(CONTENT)
    assert server.asked == [("/file.zip", None, None)]


def test_a_redirection_is_followed(server, tmp_path):
    download(server.url.replace("file.zip", "moved"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"weak"'])
def test_a_broken_connection_is_resumed(server, tmp_path, tag):
    server.tag, server.date = tag, formatdate(0, usegmt=True)
    server.breaks = [100_000, 250_000, 0, 10]
    checksum = f"sha256:{sha256(CONTENT).hexdigest()}"
    download(server.url, tmp_path / "a", checksum=checksum)
    assert (tmp_path / "a").read_bytes() == CONTENT
    starts = [0 if asked is None else int(asked[6:-1]) for _, asked, _ in server.asked]
    assert starts == [0, 100_000, 350_000, 350_000, 350_010]
    said = {condition for _, _, condition in server.asked[1:]}
    assert said == {tag if tag == '"one"' else server.date}
    assert left(tmp_path) == ["a"]


def test_what_an_earlier_run_left_is_resumed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)
    server.breaks = [300_000, 0]
    with pytest.raises(SourceError, match=r"connection broke after 300,000 of 700,000 bytes"):
        download(server.url, tmp_path / "a")
    assert left(tmp_path) == ["a.part", "a.part.from"]
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked[-1] == ("/file.zip", "bytes=300000-", '"one"')


def test_what_was_left_of_another_address_is_not(server, tmp_path):
    (tmp_path / "a.part").write_bytes(OTHER[:1000])
    note = json.dumps({"url": server.url + "x", "validator": '"one"'})
    (tmp_path / "a.part.from").write_text(note)
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [("/file.zip", None, None)]


@pytest.mark.parametrize("note", [None, "", "[1]", "{}", "\x00"])
def test_what_was_left_without_a_note_is_not(server, tmp_path, note):
    (tmp_path / "a.part").write_bytes(OTHER[:1000])
    if note is not None:
        (tmp_path / "a.part.from").write_text(note)
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("knows", ["conditions", "ranges only", "nothing"])
def test_a_file_that_changed_is_fetched_anew(server, tmp_path, monkeypatch, knows):
    monkeypatch.setattr(module, "RETRIES", 0)
    server.breaks = [300_000, 0]
    with pytest.raises(SourceError):
        download(server.url, tmp_path / "a")
    monkeypatch.setattr(module, "RETRIES", 2)
    server.content, server.tag = OTHER, '"two"'
    server.conditions, server.ranges = knows == "conditions", knows != "nothing"
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == OTHER


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    server.breaks = [300_000, 100_000]
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == [None, "bytes=300000-", "bytes=100000-"]


def test_a_server_that_says_nothing_of_the_file_starts_over(server, tmp_path):
    server.tag = None
    server.breaks = [300_000]
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == [None, None]


def test_a_wrong_part_is_not_appended(server, tmp_path):
    server.wrong_range = True
    server.breaks = [300_000]
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == [None, "bytes=300000-", None]


@pytest.mark.parametrize("there", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, there):
    server.conditions = False
    (tmp_path / "a.part").write_bytes(there)
    note = json.dumps({"url": server.url, "validator": '"one"'})
    (tmp_path / "a.part.from").write_text(note)
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.asked) == (1 if there == CONTENT else 2)


def test_a_part_with_other_bytes_is_found_out(server, tmp_path):
    (tmp_path / "a.part").write_bytes(OTHER[:1000])
    note = json.dumps({"url": server.url, "validator": '"one"'})
    (tmp_path / "a.part.from").write_text(note)
    download(server.url, tmp_path / "a", checksum=f"sha256:{sha256(CONTENT).hexdigest()}")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == ["bytes=1000-", None]


def test_no_progress_ends_it(server, tmp_path):
    server.breaks = [1000] + [0] * 99
    with pytest.raises(
        SourceError, match=rf"connection broke .*; {module.RETRIES + 1} tries without"
    ):
        download(server.url, tmp_path / "a")
    assert len(server.asked) == module.RETRIES + 2


def test_a_stalled_connection_is_broken_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    server.breaks, server.stalls = [200_000], True
    begun = time.monotonic()
    download(server.url, tmp_path / "a")
    assert time.monotonic() - begun < 2
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked[1][1] == "bytes=200000-"


def test_bytes_may_take_longer_than_the_answer(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.3)
    server.pause = 0.6
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_a_length_may_be_unknown(server, tmp_path, chunked):
    server.length, server.chunked = False, chunked
    seen = []
    download(server.url, tmp_path / "a", progress=lambda *what: seen.append(what))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert seen[-1] == ("a", len(CONTENT), None)
    server.breaks = [5000]
    if chunked:
        download(server.url, tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == CONTENT
    else:
        with pytest.raises(SourceError, match=r"must have 700,000 bytes; got 5,000"):
            download(server.url, tmp_path / "b", size=len(CONTENT))


@pytest.mark.parametrize("checksum", [f"sha256:{'0' * 64}", f"md5:{'0' * 32}"])
def test_other_content_is_refused(server, tmp_path, checksum):
    kind, wanted = checksum.split(":")
    got = {"sha256": sha256, "md5": md5}[kind](CONTENT).hexdigest()
    message = rf"{kind.upper()} hash .*expected {kind}:{wanted} but got {got}"
    with pytest.raises(SourceError, match=message):
        download(server.url, tmp_path / "a", checksum=checksum)
    assert left(tmp_path) == []
    with pytest.raises(SourceError, match=r"has 700,000 bytes; it must have 5"):
        download(server.url, tmp_path / "a", size=5)
    assert left(tmp_path) == []


def test_a_web_page_is_refused(server, tmp_path):
    server.type = "text/html; charset=utf-8"
    with pytest.raises(SourceError, match="returned a web page instead of the file"):
        download(server.url, tmp_path / "a")
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server, tmp_path, status):
    server.statuses = [status]
    with pytest.raises(SourceError, match=rf"file.zip cannot be downloaded \(HTTP Error {status}"):
        download(server.url, tmp_path / "a")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    download(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    server.statuses = [503] * 99
    with pytest.raises(SourceError, match="503"):
        download(server.url, tmp_path / "b")


def test_pauses_become_longer(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.statuses = [503] * 99
    with pytest.raises(SourceError):
        download(server.url, tmp_path / "a")
    assert pauses == [1, 2, 4, 8]


def test_where_nobody_answers_it_moves_on(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,nowhere.invalid")
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(module.time, "sleep", None)  # is not called
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        with pytest.raises(SourceError, match=r"cannot be downloaded \(.*timed out\)"):
            download(url, tmp_path / "a")
    with pytest.raises(SourceError, match=r"cannot be downloaded \(.*refused\)"):
        download(url, tmp_path / "a")
    with pytest.raises(SourceError, match=r"cannot be downloaded"):
        download("http://nowhere.invalid/", tmp_path / "a")
    with pytest.raises(SourceError, match=r"cannot be downloaded"):
        download("https" + url[4:], tmp_path / "a")


def test_an_answer_that_is_no_http(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            one, _ = listening.accept()
            with one:
                one.recv(9999)
                one.sendall(b"what?\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SourceError, match="cannot be downloaded"):
            download(f"http://127.0.0.1:{listening.getsockname()[1]}/", tmp_path / "a")
        thread.join()


def test_a_full_disk(server, tmp_path, monkeypatch):
    free = module.shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: free)
    with pytest.raises(SourceError, match=r"no space for 'a' .*700,000 bytes .*699,999 are free"):
        download(server.url, tmp_path / "a")


def test_verified(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"text"))
    assert verified(path, None, None) == sha256(path.read_bytes()).hexdigest()
    with pytest.raises(SourceError, match=r"a.gz must have 3 bytes; got \d+"):
        verified(path, 3, None)


def test_download_wheel(tmp_path, monkeypatch):
    def pip(command, *, timeout, **_options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        assert timeout == module.WHEEL_SECONDS
        folder = command[command.index("--dest") + 1]
        if command[-1] == "slow":
            raise subprocess.TimeoutExpired(command, timeout)
        if command[-1] == "good==1":
            with open(f"{folder}/good-1-py3-none-any.whl", "wb") as file:
                file.write(b"wheel")
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: none found")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(SourceError, match="pip could not download bad==1: ERROR: none found"):
        download_wheel("bad==1", tmp_path / "a.whl")
    with pytest.raises(SourceError, match="pip could not download slow"):
        download_wheel("slow", tmp_path / "a.whl")
    assert left(tmp_path) == []
    assert download_wheel("good==1", tmp_path / "a.whl") == sha256(b"wheel").hexdigest()
    assert (tmp_path / "a.whl").read_bytes() == b"wheel"
    assert left(tmp_path) == ["a.whl"]

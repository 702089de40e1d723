"""`nearfar serve` as a process: signals, sockets, flags."""

import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from nearfar.cli import app as commands
from nearfar.cli import serving as serving_commands
from nearfar.serve import server
from served import asking, process, refuses, reload, until


def test_sighup_loads_the_model_again(model_folder, other_model):
    with process(model_folder) as (running, url):
        assert url.startswith("http://127.0.0.1:")
        other_model.save(model_folder)
        running.send_signal(signal.SIGHUP)
        line = running.stderr.readline()
        assert line == f"nearfar: reloaded: {other_model.interactions!r}.\n"
        assert httpx.get(f"{url}v1/model").json()["n_users"] == other_model.interactions.n_users
        shutil.rmtree(model_folder)
        running.send_signal(signal.SIGHUP)
        assert "refused; the old one is still served: " in running.stderr.readline()
        assert httpx.get(f"{url}health").status_code == 200


@pytest.mark.parametrize(
    ("which", "code"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)],
)
def test_a_signal_ends_it_after_the_requests_in_flight(saved_model, which, code):
    with process(saved_model) as (running, url):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"user": 3, "k": 2}'
            client.sendall(
                b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:5])
            )
            until(lambda: "in_flight 2.0" in httpx.get(f"{url}metrics").text)
            running.send_signal(which)
            until(lambda: refuses(host, int(port)))
            client.sendall(body[5:])
            client.settimeout(20)
            answer = b"".join(iter(lambda: client.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"rank":2' in answer
        assert running.wait(20) == code
        assert running.stderr.read() == ""


def test_the_network_and_the_token_are_as_the_flags_say(saved_model, tmp_path):
    file = tmp_path / "token"
    file.write_text("from-file\n")
    words = (saved_model, "--host", "0.0.0.0", "--token-file", file)
    with process(*words) as (running, url), asking(url) as client:
        assert url.startswith("http://0.0.0.0:")
        assert "open to the network" in running.stderr.readline()
        assert reload(client, "from-file").status_code == 200
        assert reload(client, "else").status_code == 403


def test_a_prefix_and_origins_are_as_the_flags_say(saved_model):
    origins = ("https://example.org", "http://localhost:3000")
    flags = [word for origin in origins for word in ("--cors-origin", origin)]
    with process(saved_model, "--root-path", "/films", *flags) as (_, url), asking(url) as client:
        for origin in origins:
            answer = client.get("/films/v1/model", headers={"Origin": origin})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
                200,
                origin,
            )


def test_the_token_may_be_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("NEARFAR_TOKEN", raising=False)
    assert serving_commands._token(None) is None
    monkeypatch.setenv("NEARFAR_TOKEN", "from-environment")
    assert serving_commands._token(None) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert serving_commands._token(tmp_path / "token") == "from-file"


@pytest.fixture
def run(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as ended:
            commands(["serve", *map(str, words)])
        return ended.value.code, capsys.readouterr().err

    return call


def test_what_cannot_be_served_ends_with_a_line(run, saved_model, tmp_path):
    code, told = run(tmp_path, "--port", 0)
    assert (code, told.count("\n")) == (1, 1)
    assert "has no nearfar.json" in told
    with server.open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        code, told = run(saved_model, "--port", taken.getsockname()[1])
        assert code == 1
        assert "cannot be used" in told
        assert "`--port 0` uses a free one" in told
    code, told = run(saved_model, "--host", "no such host", "--port", 0)
    assert (code, "cannot be used" in told) == (1, True)
    for flag, wrong in (("--root-path", "films"), ("--cors-origin", "example.org")):
        code, told = run(saved_model, "--port", 0, flag, wrong)
        assert (code, told.count("\n"), repr(wrong) in told) == (1, 1, True)
    binary = tmp_path / "token"
    binary.write_bytes(b"\xff\xff")
    code, told = run(saved_model, "--port", 0, "--token-file", binary)
    assert (code, "must be text" in told) == (1, True)


def test_the_extra_is_named_where_it_is_missing():
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from nearfar.errors import MissingExtraError\n"
        "import nearfar.cli\n"
        "try:\n    import nearfar.serve\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "not installed: `pip install nearfar[serve]`" in told.stdout


def test_an_address_is_a_url():
    with server.open_socket("localhost", 0) as opened:
        assert server.is_local(opened)
        assert server.address_of(opened).endswith(f":{opened.getsockname()[1]}/")

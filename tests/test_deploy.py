"""What is in deploy/: the container file, its kernels, and the unit of systemd."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from served import process

DEPLOY = Path(__file__).parents[1] / "deploy"
SRC = Path(__file__).parents[1] / "src"


def instructions():
    """The stages of the container file, each a list of (instruction, arguments)."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    stages = []
    for name, rest in lines:
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, rest))
    return stages


def only(stage, name):
    (found,) = [rest for one, rest in stage if one == name]
    return found


def test_the_image_has_a_pinned_base_and_a_user_without_rights():
    *_, last = stages = instructions()
    for stage in stages:
        base = only(stage, "FROM").split()[0]
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", base), base
    user, group = map(int, only(last, "USER").split(":"))
    assert min(user, group) >= 1000
    names = [name for name, _ in last]
    assert "RUN" not in names
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "COPY")


def test_the_image_is_made_of_files_that_exist():
    copied = [
        rest.split()[:-1] for stage in instructions() for name, rest in stage if name == "COPY"
    ]
    files = [file for words in copied if not words[0].startswith("--") for file in words]
    assert {"src", "deploy/compile_kernels.py"} < set(files)
    for file in files:
        assert (DEPLOY.parent / file).exists(), file


def test_kernels_are_used_as_they_were_compiled():
    """numba ignores a cache of another processor or folder."""
    build, last = instructions()
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        told = [re.findall(rf"{name}=(\S+)", only(stage, "ENV")) for stage in (build, last)]
        assert told[0] == told[1]
        assert len(told[0]) == 1
    assert only(build, "ARG") == only(last, "ARG")


def test_the_image_starts_a_server_that_its_health_check_finds(saved_model):
    *_, last = instructions()
    entry, words = json.loads(only(last, "ENTRYPOINT")), json.loads(only(last, "CMD"))
    assert entry[:2] == ["/bin/sh", "-c"]
    assert entry[2].endswith('&& exec nearfar serve "$@"')
    assert words[:3] == ["/model", "--host", "0.0.0.0"]
    _, check = only(last, "HEALTHCHECK").split(" CMD ")
    command = [sys.executable, *json.loads(check)[1:]]
    with process(saved_model, *words[3:]) as (_, url):
        assert "--log-format" in words
        assert "http://127.0.0.1:8000/" in command[-1]
        command[-1] = command[-1].replace("http://127.0.0.1:8000/", url)
        assert subprocess.run(command, check=False).returncode == 0
    gone = subprocess.run(command, check=False, capture_output=True)
    assert gone.returncode != 0


@pytest.mark.slow
def test_a_server_of_the_image_compiles_nothing(saved_model, tmp_path):
    """Nothing is compiled after the build, also if files keep only whole seconds of their time."""
    package, cache = tmp_path / "site" / "nearfar", tmp_path / "site" / "kernels"
    shutil.copytree(SRC / "nearfar", package, ignore=shutil.ignore_patterns("__pycache__"))
    env = {
        "PYTHONPATH": str(package.parent),
        "NUMBA_CACHE_DIR": str(cache),
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    build = [sys.executable, str(DEPLOY / "compile_kernels.py")]
    subprocess.run(build, check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    for file in package.parent.rglob("*"):  # as a layer of an image
        os.utime(file, (int(file.stat().st_mtime),) * 2)
        file.chmod(0o555 if file.is_dir() else 0o444)
    subprocess.run(["cp", "-r", cache, tmp_path], check=True)
    subprocess.run(["chmod", "-R", "u+w", tmp_path / "kernels"], check=True)
    env["NUMBA_CACHE_DIR"] = str(tmp_path / "kernels")
    before, kernels = listing(package.parent), compiled(tmp_path / "kernels")
    model = listing(saved_model)
    assert kernels
    with process(saved_model, env=env) as (running, url):
        for body in ({"user": 3}, {"items": [1, 3]}, {"user": 3, "diversity": 0.5}):
            assert httpx.post(f"{url}v1/recommend", json=body).status_code == 200
        running.terminate()
        assert running.wait(20) == 0
        assert running.stderr.read() == ""
    assert listing(package.parent) == before
    assert compiled(tmp_path / "kernels") == kernels
    assert listing(saved_model) == model


def compiled(folder):
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*.nb?")}


def listing(folder):
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*")}


def unit():
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str
    parsed.read(DEPLOY / "nearfar.service")
    return parsed["Service"]


def test_the_unit_starts_a_server_and_shuts_it_in(saved_model):
    service = unit()
    program, command, _, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/nearfar")
    assert command == "serve"
    assert words[:2] == ["--port", "8000"]
    with process(saved_model, *words[2:]) as (_, url):
        assert httpx.get(f"{url}readyz").status_code == 200
    assert service["Environment"] == "NUMBA_CACHE_DIR=/var/cache/" + service["CacheDirectory"]
    assert int(service["TimeoutStopSec"]) > 30  # what the server gives active requests


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_what_systemd_takes(tmp_path):
    text = (DEPLOY / "nearfar.service").read_text()
    file = tmp_path / "nearfar.service"
    file.write_text(text.replace("/opt/nearfar/bin/nearfar", sys.executable))
    told = subprocess.run(
        ["systemd-analyze", "verify", file], capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=20", file]
    subprocess.run(rated, check=True, capture_output=True)  # 2.0 of 10

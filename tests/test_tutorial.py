"""The tutorial, from its first command to its last, as a reader would follow it."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import nearfar as nf
from test_docs import tables

TEXT = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SERVING = {"nearfar serve model/", "kill -HUP PID"}
"""Commands that are not run here; the requests to the server are."""


def asked(line):
    """The path and the body of a request of curl."""
    words = shlex.split(line)
    return words[1].removeprefix("localhost:8000"), json.loads(words[words.index("-d") + 1])


@pytest.mark.full
@pytest.mark.usefixtures("ml_100k")
def test_the_tutorial_is_what_happens(tmp_path, monkeypatch, capsys, ok):
    monkeypatch.chdir(tmp_path)
    served, names, said = import_module("served"), {}, {}
    for language, block in BLOCKS:
        if language:
            exec(block, names)
            continue
        for line in block.splitlines():
            if line.startswith("nearfar") and line not in SERVING:
                said[line] = ok(*shlex.split(line)[1:])
            elif line.startswith("curl"):
                path, body = asked(line)
                with served.serving(nf.serve.create_app("model/")) as client:
                    answer = served.post(client, path, **body)
                assert len(answer["results"]) == body["k"]
            else:
                assert line in SERVING or line.split()[0] in {"python", ".", "pip"}
    assert (tmp_path / "front.png").stat().st_size > 0
    assert "new user" in names["model"].interactions.user_ids.to_list()
    the_numbers_are_those(said)


def printed(said, command, row):
    """The numbers in a row of the table that a command printed."""
    (out,) = [out for line, out in said.items() if line.startswith(f"nearfar {command}")]
    cells = [[cell.strip() for cell in re.split("[│|]", line)] for line in out.splitlines()]
    (found,) = [line[2:] for line in cells if line[1:2] == [row]]
    return [float(cell.split()[0]) for cell in found if cell]


def the_numbers_are_those(said):
    """Compare the page with what the commands printed."""
    (prepared,) = [out for line, out in said.items() if line.startswith("nearfar prepare")]
    for shown in re.search(r"([\d,]+) users, ([\d,]+) films and ([\d,]+) pairs", TEXT).groups():
        assert f" {shown}\n" in prepared
    ((_, _, *rows),) = tables(TEXT)
    for metric, *values in rows:
        own = printed(said, "evaluate", metric)
        assert [float(value) for value in values] == pytest.approx(own, rel=0.03)
    written = re.search(r"NDCG is ([\d.]+) instead.* MMR ([\d.]+) ", TEXT).groups()
    _, ndcg, _, mmr, _ = printed(said, "front", "0.5")
    assert [float(value) for value in written] == pytest.approx([ndcg, mmr], rel=0.03)


def test_there_is_something_to_follow():
    assert len(BLOCKS) > 8
    assert sum("nearfar " in block for _, block in BLOCKS) >= 5

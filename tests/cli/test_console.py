"""Consoles that lack letters of the ids and titles: what cannot be shown is replaced."""

import io
import json
import os
import subprocess
import sys

import polars as pl
import pytest

from conftest import PLAIN
from nearfar import CML, Interactions, cli, datasets

NAMES = {n: f"Фильм {n}" for n in range(16)}
"""The items of even and of odd users; the letters are not in cp1252, nor are the next."""
USERS = {n: f"用户 {n}" for n in range(16)}


def odd_data():
    pairs = [(u, i) for u in NAMES for i in NAMES if (u + i) % 2 == 0 and u != i]
    data = Interactions.from_pairs([(USERS[u], NAMES[i]) for u, i in pairs])
    titles = [f"Ёж — {one} ✓" for one in data.item_ids]
    return data.with_item_table(pl.DataFrame({"item_id": data.item_ids.values, "title": titles}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    CML(PLAIN, dim=3, batch=8).fit(odd_data(), epochs=1).save(path)
    return path


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal, so that progress is shown on it."""

    def isatty(self):
        return True


@pytest.fixture(params=["cp1252", "ascii"])
def console(request, monkeypatch):
    """Run the program on a console of this encoding; gives its code and what it wrote."""
    encoding = request.param

    def call(*words, kind=io.TextIOWrapper):
        streams = [kind(io.BytesIO(), encoding, newline="\n") for _ in range(2)]
        monkeypatch.setattr(sys, "argv", ["nearfar", *map(str, words)])
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", streams[0])
            patched.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            for stream in streams:
                stream.flush()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
        return ended.value.code or 0, out, err

    return call


def test_tables_and_lines(console, folder):
    code, out, err = console("recommend", folder, "--user", USERS[3], "--k", 3)
    assert (code, err) == (0, "")
    assert out.count("?? 3") == 1
    assert out.count("????? ") >= 3
    code, out, _ = console("recommend", folder, "--liked", NAMES[3], "--k", 3)
    assert (code, "????? 3" in out) == (0, True)
    code, out, _ = console("recommend", folder, "--user", USERS[3], *each("--deny", NAMES.values()))
    assert (code, "?? 3: no items are left." in out) == (0, True)
    code, out, _ = console("similar", folder, "--user", USERS[3], "--k", 2)
    assert (code, out.count("?? ") >= 3) == (0, True)


def each(flag, values):
    return [word for value in values for word in (flag, value)]


def test_json_has_every_letter(console, folder):
    code, out, _ = console("recommend", folder, "--user", USERS[3], "--k", 3, "--json")
    assert code == 0
    (found,) = json.loads(out)["recommendations"]
    assert found["user_id"] == USERS[3]
    assert all(entry["item_id"].startswith("Фильм ") for entry in found["nearest"])
    assert all(entry["title"].startswith("Ёж — ") for entry in found["nearest"])


def test_errors_and_warnings(console, folder):
    code, out, err = console("recommend", folder, "--user", "никто")
    assert (code, out) == (1, "")
    assert "Unknown user id: '?????'" in err


def test_files_and_progress(console, folder, tmp_path):
    pairs = tmp_path / "данные.csv"
    lines = [f"{user},{item}" for user, item in odd_data().to_frame().rows()]
    pairs.write_text("\n".join(["user,item", *lines]), "utf-8")
    words = ("fit", pairs, "-o", tmp_path / "модель", "--epochs", 1, "--dim", 3, "--threads", 1)
    code, _, err = console(*words, kind=Terminal)
    assert code == 0, err
    assert "training" in err
    code, _, err = console("batch", folder, "-o", tmp_path / "списки", "--k", 2, kind=Terminal)
    assert code == 0, err
    assert (tmp_path / "списки" / "part-00000.parquet").exists()


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_the_demonstration(console, monkeypatch):
    monkeypatch.setattr(datasets, "locate", lambda name, path: ("the file", "тест"))
    monkeypatch.setattr(datasets, "load", lambda name, path: films())
    code, out, err = console("demo", "--epochs", 1, kind=Terminal)
    assert code == 0, err
    assert "from ????:" in out
    assert "? ????? 50" in out


def films():
    """Two tastes; ids as in MovieLens, of which the demonstration shows two."""
    pairs = [(u, i) for u in range(60) for i in range(60) if (u + i) % 2 == 0 and (u * i) % 3]
    data = Interactions.from_pairs([(str(196 + u), str(i)) for u, i in pairs])
    titles = [f"Ё Фильм {one} ({1950 + int(one)})" for one in data.item_ids]
    table = pl.DataFrame({"item_id": data.item_ids.values, "title": titles})
    return data.with_item_table(table.with_columns(genres=pl.lit("Drama")))


def test_a_real_console(folder):
    done = subprocess.run(
        [sys.executable, "-m", "nearfar", "recommend", folder, "--user", USERS[3], "--k", "2"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?????" in done.stdout

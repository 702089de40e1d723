import io
import os
import subprocess
import sys
import threading
import zipfile
from hashlib import md5
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import polars as pl
import pytest

from nearfar import datasets
from nearfar.datasets import movielens, source
from nearfar.errors import EmptyDataError, OptionError, SourceError

RATINGS = [("196", "2", 3, 881250949), ("22", "1", 4, 878887116), ("196", "1", 5, 881250950)]
TITLES = {"1": ("Toy Story", "1995"), "2": ("Misérables, Les", "1995"), "3": ("unkonwn", "unkonwn")}
OFFICIAL = {
    "ml-100k/u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS).encode(),
    "ml-100k/u.item": (
        "1|Toy Story (1995)|01-Jan-1995||http|0\n2|Misérables, Les (1995)|01-Jan-1995||http|0\n"
        "3|unknown||||1\n"
    ).encode("latin-1"),
    "ml-100k/README": b"terms",
}
RECBOLE = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join("\t".join(map(str, row)) + "\n" for row in reversed(RATINGS))
    ).encode(),
    "recbole/dataset_example/ml-100k/ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        + "".join(f"{item}\t{title}\t{year}\tDrama\n" for item, (title, year) in TITLES.items())
    ).encode(),
}
SHOWN = [("1", "Toy Story (1995)"), ("2", "Misérables, Les (1995)"), ("3", "unknown")]


def archive(files):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return raw.getvalue()


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch):
    """Three ratings are the whole data set; the cache is empty; nothing can be fetched."""
    table = pl.DataFrame(RATINGS, schema=["user", "item", "value", "time"], orient="row")
    monkeypatch.setattr(movielens, "RATINGS_SHA256", movielens.checksum(table))
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "download", failing("no network"))
    monkeypatch.setattr(movielens, "download", failing("no network"))
    monkeypatch.setattr(movielens, "download_wheel", failing("no index"))


def failing(why):
    def fetch(*_args):
        raise SourceError(why)

    return fetch


def copies(folder):
    (folder / "official").mkdir()
    (folder / "recbole").mkdir()
    for name, content in OFFICIAL.items():
        (folder / "official" / Path(name).name).write_bytes(content)
    for name, content in RECBOLE.items():
        (folder / "recbole" / Path(name).name).write_bytes(content)
    (folder / "ml-100k.zip").write_bytes(archive(OFFICIAL))
    (folder / "recbole-1.2.1.whl").write_bytes(archive(RECBOLE))
    (folder / "above").mkdir()
    (folder / "above" / "ml-100k").mkdir()
    for name, content in OFFICIAL.items():
        (folder / "above" / name).write_bytes(content)
    return ["official", "recbole", "ml-100k.zip", "recbole-1.2.1.whl", "above"]


def test_every_form_of_a_copy_gives_the_same_data(tmp_path):
    for form in copies(tmp_path):
        data = datasets.load("ml-100k", tmp_path / form)
        assert data.to_frame().rows() == [("196", "1", 881250950), ("22", "1", 878887116)], form
        assert datasets.load_items("ml-100k", str(tmp_path / form)).rows() == SHOWN
        table = datasets.load_table("ml-100k", tmp_path / form).collect()
        assert sorted(table.rows()) == sorted(RATINGS)
        assert table.schema == {
            "user": pl.String,
            "item": pl.String,
            "value": pl.Int64,
            "time": pl.Int64,
        }


def test_a_threshold_and_names():
    assert datasets.names() == ["ml-100k"]
    with pytest.raises(OptionError, match="no data set 'ml-1m'; there are: ml-100k"):
        datasets.load("ml-1m")


def test_the_cache_is_used_and_a_damaged_one_replaced(tmp_path, monkeypatch):
    copies(tmp_path)
    first = datasets.load("ml-100k", tmp_path / "ml-100k.zip")
    assert datasets.load("ml-100k") == first
    assert len(datasets.load("ml-100k", min_value=3)) == 3
    with pytest.raises(EmptyDataError, match="'value' >= 6"):
        datasets.load("ml-100k", min_value=6)
    (ratings,) = (tmp_path / "cache" / "ml-100k").glob("ratings-*")
    ratings.write_bytes(ratings.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"the cache: .*ratings-.* must have"):
        datasets.load("ml-100k")
    monkeypatch.setattr(movielens, "download_wheel", lambda *_: tmp_path / "recbole-1.2.1.whl")
    assert datasets.load("ml-100k") == first
    monkeypatch.setattr(movielens, "download_wheel", failing("asked again"))
    assert datasets.load("ml-100k") == first


def test_sources_are_tried_in_order(tmp_path, monkeypatch):
    copies(tmp_path)
    asked = []

    def official(url, target):
        asked.append(url)
        target.write_bytes((tmp_path / "ml-100k.zip").read_bytes())
        return target

    def wheel(requirement, _folder):
        asked.append(requirement)
        return tmp_path / "recbole-1.2.1.whl"

    monkeypatch.setattr(movielens, "download", official)
    monkeypatch.setattr(movielens, "download_wheel", wheel)
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "one"))
    fallen_back = datasets.load("ml-100k")  # the MD5 of our archive is not that of the real one
    assert asked == [movielens.URL, movielens.WHEEL]
    monkeypatch.setattr(
        movielens, "URL_MD5", md5((tmp_path / "ml-100k.zip").read_bytes()).hexdigest()
    )
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "two"))
    assert datasets.load("ml-100k") == fallen_back
    assert asked[2:] == [movielens.URL]


def test_without_any_source_it_says_what_was_tried():
    message = (
        r"'ml-100k' could not be found. Tried:\n  - the cache: .* does not exist.*\n"
        r"  - the official address: no network\n  - the wheel recbole==1.2.1: no index\n.*`path=`"
    )
    with pytest.raises(SourceError, match=message):
        datasets.load("ml-100k")


def test_a_path_is_the_only_place_that_is_looked_at(tmp_path, monkeypatch):
    copies(tmp_path)
    datasets.load("ml-100k", tmp_path / "official")
    with pytest.raises(SourceError, match=r"There is no '.*nowhere'"):
        datasets.load("ml-100k", tmp_path / "nowhere")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(SourceError, match="no zip archive or is damaged"):
        datasets.load("ml-100k", tmp_path / "text")
    with pytest.raises(SourceError, match=r"has neither u.data nor ml-100k.inter"):
        datasets.load("ml-100k", tmp_path / "cache")
    (tmp_path / "official" / "u.item").unlink()
    with pytest.raises(SourceError, match=r"'u.item' with the titles is missing"):
        datasets.load("ml-100k", tmp_path / "official")
    (tmp_path / "recbole" / "ml-100k.item").write_text("1\n")
    with pytest.raises(SourceError, match=r"no good copy .*an id and a title in each line"):
        datasets.load("ml-100k", tmp_path / "recbole")
    for content, why in [
        (
            OFFICIAL["ml-100k/u.data"].replace(b"3", b"4"),
            r"The 3 ratings .* not those of MovieLens",
        ),
        (OFFICIAL["ml-100k/u.data"][:30], "not those of MovieLens|must be user, item, rating"),
        (b"a\tb\tc\td\n", "must be user, item, rating, timestamp"),
        (b"1\t2\n", "must be user, item, rating, timestamp"),
    ]:
        (tmp_path / "above" / "ml-100k" / "u.data").write_bytes(content)
        with pytest.raises(SourceError, match=why):
            datasets.load("ml-100k", tmp_path / "above")


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch, caplog):
    copies(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "file"))
    assert len(datasets.load("ml-100k", tmp_path / "official")) == 2
    assert "not kept for the next time" in caplog.text


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"NEARFAR_CACHE": "/n", "XDG_CACHE_HOME": "/x"}, "/n"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/nearfar"),
        ("linux", {}, "~/.cache/nearfar"),
        ("darwin", {}, "~/Library/Caches/nearfar"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/nearfar/Cache"),
        ("win32", {}, "~/AppData/Local/nearfar/Cache"),
    ],
)
def test_where_the_cache_is(monkeypatch, platform, variables, expected):
    for name in ("NEARFAR_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert source.cache_folder() == Path(os.path.expanduser(expected))


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/here" else 404)
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_args):
        pass


def test_download(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert source.download(f"{address}/here", tmp_path / "a").read_bytes() == b"content"
        with pytest.raises(SourceError, match=r"/gone cannot be fetched \(.*404"):
            source.download(f"{address}/gone", tmp_path / "b")
        monkeypatch.setattr(source, "TOTAL_SECONDS", -1)
        with pytest.raises(SourceError, match="took longer than -1 seconds"):
            source.download(f"{address}/here", tmp_path / "c")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(SourceError, match="cannot be fetched"):
        source.download(f"{address}/here", tmp_path / "d")


def test_download_wheel(tmp_path, monkeypatch):
    monkeypatch.undo()

    def pip(command, *, timeout, **_options):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert timeout == source.TOTAL_SECONDS
        if command[-1] == "slow":
            raise subprocess.TimeoutExpired(command, timeout)
        if command[-1] == "good==1":
            (tmp_path / "good-1.whl").write_bytes(b"")
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: none found")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(SourceError, match="pip could not fetch bad==1: ERROR: none found"):
        source.download_wheel("bad==1", tmp_path)
    with pytest.raises(SourceError, match="pip could not fetch slow"):
        source.download_wheel("slow", tmp_path)
    assert source.download_wheel("good==1", tmp_path).name == "good-1.whl"


def test_the_real_one(ml_100k, monkeypatch):
    monkeypatch.undo()
    data = ml_100k
    assert (data.n_users, data.n_items, len(data)) == (942, 1447, 55_375)
    assert movielens.checksum(datasets.load_table("ml-100k").collect()) == movielens.RATINGS_SHA256
    items = dict(datasets.load_items("ml-100k").rows())
    assert len(items) == 1682
    assert items["50"] == "Star Wars (1977)"
    assert set(data.item_ids) <= set(items)

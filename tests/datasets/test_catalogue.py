"""The known data sets, the cache they are fetched into, and the commands for them."""

import inspect
import io
import json
import logging
import re
import sys
import threading
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from test_download import CONTENT, OTHER, left, serving

from nearfar import datasets
from nearfar.cli import fetching as commands
from nearfar.datasets import cache, catalogue, download
from nearfar.datasets.catalogue import CATALOGUE, RemoteFile, info
from nearfar.datasets.recipes import RECIPES
from nearfar.errors import OptionError, SourceError

NAMES = [
    "ml-100k", "ml-1m", "ml-20m", "ml-25m", "lastfm-2k", "book-crossing", "amazon-movies-tv",
    "amazon-movies-tv-ratings", "echonest",
]  # fmt: skip


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server; the data set "small" has the file it serves, and an optional one it lacks."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(cache, "_POLL_SECONDS", 0.01)
    with serving() as one:
        main = RemoteFile("main.zip", (one.url,), len(CONTENT), exact=True,
                          checksum=f"sha256:{sha256(CONTENT).hexdigest()}")  # fmt: skip
        small = replace(info("ml-1m"), name="small", title="Small", files=(main,))
        monkeypatch.setitem(CATALOGUE, "small", small)
        yield one


def change(monkeypatch, **changes):
    """Change the data set "small"; `urls` are those of its file."""
    small = CATALOGUE["small"]
    if "urls" in changes:
        changes["files"] = (replace(small.files[0], urls=changes.pop("urls")), *small.files[1:])
    monkeypatch.setitem(CATALOGUE, "small", replace(small, **changes))


def unreachable(server):
    return f"http://127.0.0.1:{server.server_port}/gone"


# ------------------------------------------------------------------ what is known


def test_names_and_info():
    assert datasets.names() == NAMES
    assert all(info(name).name == name for name in NAMES)
    with pytest.raises(
        OptionError, match=r"no data set 'ml-2m'; the data sets are ml-100k, ml-1m, "
    ):
        info("ml-2m")


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_whole(name):
    data = info(name)
    assert data.recipe in RECIPES
    assert not data.files[0].optional
    assert 0 < data.n_users < data.n_rows
    assert 0 < data.n_items < data.n_rows
    assert data.min_value >= 1
    assert data.homepage.startswith("http")
    for file in data.files:
        assert re.fullmatch(r"[\w.-]+", file.name)
        for url in file.urls:
            parts = urlsplit(url)
            assert parts.scheme in {"http", "https"}
            assert parts.path.endswith(f"/{file.name}")
        if file.checksum is not None:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum)
        assert file.size is not None or not file.exact
    assert (data.instead is None) == (name != "ml-100k")


def test_terms_say_whether_the_data_may_be_passed_on():
    forbidden = info("ml-1m")
    assert "DO NOT REDISTRIBUTE" in forbidden.terms
    for said in (forbidden.licence, forbidden.citation, forbidden.homepage):
        assert said in forbidden.terms
    allowed = replace(forbidden, redistribution=True, note="Mind the gap.")
    assert "REDISTRIBUTE" not in allowed.terms
    assert "You may redistribute the data" in allowed.terms
    assert allowed.terms.endswith("Mind the gap.")
    assert not any(info(name).redistribution for name in NAMES)


# ------------------------------------------------------------------ the cache


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"NEARFAR_CACHE": "/n", "XDG_CACHE_HOME": "/x"}, "/n"),
        ("linux", {"NEARFAR_CACHE": "~/n"}, "~/n"),
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
    assert cache.cache_folder() == Path(expected).expanduser()


def test_terms_are_told_before_anything_is_fetched(server, tmp_path):
    told = []

    def tell(text):
        told.append((text, len(server.asked)))

    path = datasets.fetch("small", tell=tell)
    assert path == tmp_path / "cache" / "small" / "main.zip"
    assert path.read_bytes() == CONTENT
    assert told == [(info("small").terms, 0)]
    assert datasets.fetch("small", tell=tell) == path  # is there: nothing told, nothing asked
    assert len(told) == len(server.asked) == 1


def test_terms_are_logged_by_default(server, caplog):
    datasets.fetch("small")
    assert [(r.name, r.levelno) for r in caplog.records] == [("nearfar", logging.WARNING)]
    assert "DO NOT REDISTRIBUTE" in caplog.text


def test_what_was_fetched_is_noted(server, tmp_path):
    path = datasets.fetch("small")
    note = json.loads((path.parent / "main.zip.fetched").read_text())
    assert note == {
        "url": server.url,
        "size": len(CONTENT),
        "sha256": sha256(CONTENT).hexdigest(),
    }
    assert cache.origin(path) == server.url
    assert left(path.parent) == [".lock", "main.zip", "main.zip.fetched"]


def test_another_folder(server, tmp_path):
    place = tmp_path / "new" / "folder"
    assert datasets.fetch("small", folder=str(place)) == place / "main.zip"
    assert cache.find(info("small")) is None
    assert cache.find(info("small"), place) == place / "main.zip"


def test_what_is_there_is_verified(server, monkeypatch):
    path = datasets.fetch("small")
    assert cache.find(info("small")) == path
    for damaged, why in [
        (CONTENT[:-1], r"must have 700,000 bytes; got 699,999"),
        (OTHER + OTHER[:50_000], r"must have the sha256 [0-9a-f]{64}; got [0-9a-f]{64}"),
    ]:
        path.write_bytes(damaged)
        for use in (lambda: cache.find(info("small")), lambda: datasets.fetch("small")):
            with pytest.raises(SourceError, match=rf"is damaged: main.zip {why}. .*small --force`"):
                use()
        assert cache.find(info("small"), verify=False) == path
        assert datasets.fetch("small", force=True) == path
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "note", [None, "", "[]", '{"url": "x"}', '{"url":1,"size":"a","sha256":1}']
)
def test_what_was_put_there_by_hand_is_verified_against_the_catalogue(server, note):
    place = cache.folder_of(info("small"))
    place.mkdir(parents=True)
    (place / "main.zip").write_bytes(CONTENT)
    if note is not None:
        (place / "main.zip.fetched").write_text(note)
    assert datasets.fetch("small") == place / "main.zip"
    assert cache.origin(place / "main.zip") == ""
    assert server.asked == []
    (place / "main.zip").write_bytes(OTHER)
    with pytest.raises(SourceError, match=r"is damaged: main.zip must have"):
        cache.find(info("small"))


def test_a_failed_force_leaves_what_was_there(server):
    path = datasets.fetch("small")
    server.statuses = [404]
    with pytest.raises(SourceError, match="404"):
        datasets.fetch("small", force=True)
    assert cache.find(info("small")) == path


def test_addresses_are_tried_in_order(server, monkeypatch):
    change(monkeypatch, urls=(unreachable(server), server.url))
    server.statuses = [404]
    path = datasets.fetch("small")
    assert [asked for asked, *_ in server.asked] == ["/gone", "/file.zip"]
    assert cache.origin(path) == server.url
    server.statuses = [404, 403]
    with pytest.raises(SourceError) as caught:
        datasets.fetch("small", force=True)
    message = str(caught.value)
    assert message.startswith(
        "main.zip of the data set 'small' could not be downloaded. Tried:\n  - "
    )
    assert re.search(r"/gone cannot .*404.*\n  - .*/file.zip cannot .*403.*\n", message)
    assert "`path=`" in message


def test_an_optional_file_may_be_missing(server, monkeypatch, caplog):
    extra = RemoteFile("extra.txt", (unreachable(server),), optional=True)
    change(monkeypatch, files=(*info("small").files, extra))
    server.statuses = [None, 404]
    path = datasets.fetch("small")
    assert path.name == "main.zip"
    assert "extra.txt of 'small' could not be downloaded and is left out" in caplog.text
    assert cache.find(info("small")) == path
    assert not (path.parent / "extra.txt").exists()
    # Now it is there, and only it is asked for.
    assert datasets.fetch("small") == path
    assert [asked for asked, *_ in server.asked] == ["/file.zip", "/gone", "/gone"]
    assert (path.parent / "extra.txt").read_bytes() == CONTENT


def test_a_file_that_is_needed_may_not_be_missing(server, monkeypatch):
    extra = RemoteFile("extra.txt", (unreachable(server),))
    change(monkeypatch, files=(*info("small").files, extra))
    server.statuses = [None, 404]
    with pytest.raises(SourceError, match=r"extra.txt of the data set 'small' could not"):
        datasets.fetch("small")
    assert cache.find(info("small")) is None
    assert datasets.fetch("small").name == "main.zip"
    assert len(server.asked) == 3  # what was there was not asked for again


def test_a_wheel_instead(server, monkeypatch):
    wheels = []

    def pip(requirement, target):
        wheels.append(requirement)
        target.write_bytes(OTHER)
        return sha256(OTHER).hexdigest()

    monkeypatch.setattr(cache, "download_wheel", pip)
    change(monkeypatch, instead=RemoteFile("some.whl", ("pip:some==1",)))
    server.statuses = [404]
    path = datasets.fetch("small")
    assert path.name == "some.whl"
    assert wheels == ["some==1"]
    assert cache.origin(path) == "the wheel some==1"
    assert cache.find(info("small")) == datasets.fetch("small") == path
    assert len(server.asked) == len(wheels) == 1
    main = datasets.fetch("small", force=True)
    assert main.name == "main.zip"
    assert cache.find(info("small")) == main
    path.write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"some.whl' is damaged"):
        cache.find(info("small"))


def test_neither_file_nor_wheel(server, monkeypatch):
    def pip(requirement, target):
        raise SourceError("no index")

    monkeypatch.setattr(cache, "download_wheel", pip)
    change(monkeypatch, instead=RemoteFile("some.whl", ("pip:some==1",)))
    server.statuses = [404]
    with pytest.raises(SourceError, match=r"404.*\n  - the wheel some==1: no index\n"):
        datasets.fetch("small")


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match=r"cannot be written: .* Set \$NEARFAR_CACHE"):
        datasets.fetch("small")
    place = tmp_path / "other"
    (place / "main.zip.part").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"main.zip' cannot be written: .*\$NEARFAR_CACHE"):
        datasets.fetch("small", folder=place)


def test_one_process_at_a_time(server, caplog):
    fcntl = pytest.importorskip("fcntl", reason="the test locks as POSIX does")
    place = cache.folder_of(info("small"))
    place.mkdir(parents=True)
    found = []
    with (place / cache.LOCK).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threads = [
            threading.Thread(target=lambda: found.append(datasets.fetch("small"))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        threads[0].join(0.1)
        assert server.asked == []
    for thread in threads:
        thread.join()
    assert found == [place / "main.zip"] * 3
    assert len(server.asked) == 1
    assert "Another process is downloading" in caplog.text


# ------------------------------------------------------------------ the commands


@pytest.fixture
def run(capsys):
    def running(*words):
        app = commands.app(lambda command: command)
        with pytest.raises(SystemExit) as ended:
            app(list(words))
        assert not ended.value.code
        return capsys.readouterr()

    return running


def test_the_list(run, server, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for _ in range(2):
        found = json.loads(run("list", "--json").out)["datasets"]
        assert [one["name"] for one in found] == [*NAMES, "small"]
    assert found[1]["files"][0]["checksum"] == info("ml-1m").files[0].checksum
    out = run("list").out
    for said in ("48,373,586", "262 MB", "ml-25m", "cached"):
        assert said in out
    assert server.asked == []


def test_the_info(run, server):
    out = run("info", "small").out
    for said in ("1,000,209 rows", "DO NOT REDISTRIBUTE", "700,000 bytes", server.url,
                 "In the cache: no"):  # fmt: skip
        assert said in out
    path = datasets.fetch("small")
    assert "In the cache: yes" in run("info", "small").out
    path.write_bytes(b"")
    assert json.loads(run("info", "small", "--json").out)["cached"] == "damaged"
    assert "no checksum known" in run("info", "echonest").out
    assert "about 84.0 MB, optional" in run("info", "echonest").out
    assert "the wheel recbole==1.2.1" in run("info", "ml-100k").out


def test_the_fetching(run, server, tmp_path):
    out, err = run("fetch", "small", "--out", str(tmp_path / "here"))
    assert out == f"{tmp_path / 'here' / 'main.zip'}\n"
    assert "DO NOT REDISTRIBUTE" in err
    assert "--recipe movielens" in err
    out, err = run("fetch", "small", "--progress", "--json")
    place = tmp_path / "cache" / "small" / "main.zip"
    assert json.loads(out) == {"name": "small", "path": str(place)}
    assert "main.zip" in err.replace(str(place), "")
    place.write_bytes(b"")
    with pytest.raises(SourceError, match="--force"):
        run("fetch", "small")
    out, err = run("fetch", "small", "--force", "--no-progress")
    assert out == f"{place}\n"
    assert place.read_bytes() == CONTENT


def test_the_commands_report_errors_as_they_are_told():
    caught = []

    def reporting(command):
        def reported(**values):
            try:
                command(**values)
            except OptionError as error:
                caught.append(str(error))

        reported.__signature__ = inspect.signature(command, eval_str=True)
        return reported

    with pytest.raises(SystemExit):
        commands.app(reporting)(["info", "nothing"])
    assert len(caught) == 1
    assert "no data set 'nothing'" in caught[0]


def test_a_fetched_archive_can_be_loaded(server, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("ml-1m/ratings.dat", "1::10::5::978300760\n2::10::3::978302109\n")
        made.writestr("ml-1m/movies.dat", "10::Toy Story (1995)::Animation|Comedy\n")
    server.content = packed.getvalue()
    change(monkeypatch, files=(RemoteFile("main.zip", (server.url,)),))
    data = datasets.load("small")
    assert data.to_frame().rows() == [("1", "10", 978300760)]
    server.statuses = [404] * 9
    assert datasets.load("small", min_value=3).n_pairs == 2  # from the cache
    assert datasets.load("small") == data
    assert datasets.locate("small")[1] == f"the cache, {cache.folder_of(info('small'))}"
    assert data.titles(["10"]) == ["Toy Story (1995)"]
    assert catalogue.info("small").min_value == 4

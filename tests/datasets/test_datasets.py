"""Loading data sets by name; the smallest stands for all."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from nearfar import datasets
from nearfar.datasets import cache, movielens
from nearfar.datasets.catalogue import CATALOGUE
from nearfar.errors import DataError, EmptyDataError, OptionError, SourceError
from nearfar.readers.raw import Raw

RATINGS = [("196", "2", 3, 881250949), ("22", "1", 4, 878887116), ("196", "1", 5, 881250950)]
TITLES = {"1": ("Toy Story", "1995"), "2": ("Misérables, Les", "1995")}
FLAGS = "|".join("0" for _ in range(19))
OFFICIAL = {
    "ml-100k/u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS).encode(),
    "ml-100k/u.item": "".join(
        f"{item}|{title} ({year})|01-Jan-1995||http|{FLAGS}\n"
        for item, (title, year) in TITLES.items()
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
SHOWN = [("1", "Toy Story (1995)"), ("2", "Misérables, Les (1995)")]


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
    checksum = movielens.checksum(table)
    small = replace(CATALOGUE["ml-100k"], ratings_sha256=checksum)
    monkeypatch.setitem(CATALOGUE, "ml-100k", small)
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "download", failing("no network"))
    monkeypatch.setattr(cache, "download_wheel", failing("no index"))


def failing(why):
    def fetch(*_args, **_options):
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
        assert data.item_table.select("item_id", "title").rows() == SHOWN[:1]  # of those it has
        with datasets.opened("ml-100k", tmp_path / form) as raw:
            table = raw.rows.collect()
        assert sorted(table.rows()) == sorted(RATINGS)
        assert table.schema == {
            "user": pl.String,
            "item": pl.String,
            "value": pl.Int64,
            "time": pl.Int64,
        }


def test_a_threshold(tmp_path):
    copies(tmp_path)
    path = tmp_path / "ml-100k.zip"
    assert len(datasets.load("ml-100k", path, min_value=3)) == 3
    assert len(datasets.load("ml-100k", path, min_value=5)) == 1
    with pytest.raises(EmptyDataError, match="'value' >= 6"):
        datasets.load("ml-100k", path, min_value=6)


def test_unknown_names(tmp_path):
    with pytest.raises(OptionError, match=r"no data set 'ml-2m'; the data sets are ml-100k, "):
        datasets.load("ml-2m")
    with (
        pytest.raises(OptionError, match=r"no data set or recipe 'ml'; .*ml-1m.* amazon"),
        datasets.opened("ml", tmp_path),
    ):
        pass
    with (
        pytest.raises(OptionError, match=r"'movielens' is a recipe, .* needs a `path`"),
        datasets.opened("movielens"),
    ):
        pass


def test_where_it_is(tmp_path):
    copies(tmp_path)
    assert datasets.locate("ml-100k", tmp_path / "above") == (
        tmp_path / "above", str(tmp_path / "above"),
    )  # fmt: skip


def test_a_copy_in_the_cache_is_used(tmp_path):
    copies(tmp_path)
    kept = tmp_path / "cache" / "ml-100k"
    kept.mkdir(parents=True)
    (kept / "recbole-1.2.1.whl").write_bytes(archive(RECBOLE))
    file, where = datasets.locate("ml-100k")
    assert where == f"the cache, {kept}"
    official = datasets.load("ml-100k", tmp_path / "official")
    assert datasets.load("ml-100k", file) == datasets.load("ml-100k") == official


def test_without_any_source_it_says_what_was_tried():
    message = (
        r"ml-100k.zip of the data set 'ml-100k' could not be downloaded. Tried:\n"
        r"  - https://files.grouplens.org/\S+: no network\n"
        r"  - the wheel recbole==1.2.1: no index\n.*`path=`"
    )
    with pytest.raises(SourceError, match=message):
        datasets.load("ml-100k")


def test_a_path_is_the_only_place_that_is_looked_at(tmp_path):
    copies(tmp_path)
    kept = tmp_path / "cache" / "ml-100k"
    kept.mkdir(parents=True)
    (kept / "recbole-1.2.1.whl").write_bytes(archive(RECBOLE))
    assert len(datasets.load("ml-100k")) == 2
    with pytest.raises(SourceError, match=r"There is no file or folder '.*nowhere'"):
        datasets.load("ml-100k", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' contains no "):
        datasets.load("ml-100k", tmp_path / "empty")
    (tmp_path / "no.zip").write_text("no archive")
    with pytest.raises(DataError, match="not a zip archive"):
        datasets.load("ml-100k", tmp_path / "no.zip")


@pytest.mark.parametrize(
    ("content", "error", "why"),
    [
        (OFFICIAL["ml-100k/u.data"].replace(b"\t3\t", b"\t2\t"), SourceError, "not those of Movie"),
        (OFFICIAL["ml-100k/u.data"].split(b"\n")[0], SourceError, "not those of MovieLens-100K"),
        (b"a\tb\tc\td\n", DataError, "value of line 1"),
        (b"1\t2\n", DataError, "must have 4 fields"),
    ],
)
def test_ratings_are_verified(tmp_path, content, error, why):
    (tmp_path / "u.data").write_bytes(content)
    with pytest.raises(error, match=why):
        datasets.load("ml-100k", tmp_path / "u.data")


def test_a_recipe_reads_any_file_of_its_form(tmp_path):
    (tmp_path / "u.data").write_bytes(OFFICIAL["ml-100k/u.data"].split(b"\n")[0])
    with datasets.opened("movielens", tmp_path / "u.data") as raw:
        assert raw.rows.collect().rows() == RATINGS[:1]


def test_scratch_files_are_where_they_should_be_and_removed(tmp_path):
    copies(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with datasets.opened("ml-100k", tmp_path / "ml-100k.zip", scratch=scratch) as raw:
        assert [path for path in scratch.rglob("*") if path.is_file()]
        assert raw.rows.collect().height == 3
    assert list(scratch.iterdir()) == []
    with (
        pytest.raises(OptionError, match=r"`scratch` must be an existing folder; got .*nowhere"),
        datasets.opened("ml-100k", tmp_path / "ml-100k.zip", scratch=tmp_path / "nowhere"),
    ):
        pass


def test_without_items(tmp_path):
    (tmp_path / "u.data").write_bytes(OFFICIAL["ml-100k/u.data"])
    data = datasets.load("ml-100k", tmp_path)
    assert (len(data), data.item_table) == (2, None)
    assert data.titles(["1"]) == [None]


def rows_of(monkeypatch, **raw):
    recipe = replace(datasets.RECIPES["echonest"], read=lambda *_: Raw(**raw))
    monkeypatch.setitem(datasets.RECIPES, "echonest", recipe)


def test_rows_that_are_left_out_and_no_times(tmp_path, monkeypatch):
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b"],
            "item": ["x", "y", "x", "z"],
            "value": [5, 9, 4, 7],
            "dropped": [None, "do not match", None, None],
        }
    )
    rows_of(monkeypatch, rows=frame.lazy())
    data = datasets.load("echonest", tmp_path)
    assert data.to_frame().select("user_id", "item_id").rows() == [("a", "x"), ("b", "z")]
    assert data.times is None
    with datasets.opened("echonest", tmp_path) as raw:
        assert raw.rows.collect().equals(frame)


def test_lines_that_could_not_be_read_are_told(tmp_path, monkeypatch, caplog):
    frame = pl.DataFrame({"user": ["a"], "item": ["x"], "value": [5]})
    rejected = pl.DataFrame({"line": [7, 9], "reason": ["is odd", "is odd"], "text": ["7", "9"]})
    rows_of(monkeypatch, rows=frame.lazy(), rejected=rejected)
    datasets.load("echonest", tmp_path)
    assert f"2 lines of {tmp_path} could not be read" in caplog.text
    assert "line 7 (is odd): '7'" in caplog.text


def test_a_value_that_is_missing_is_an_error(tmp_path, monkeypatch):
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "value": [5, None]})
    rows_of(monkeypatch, rows=frame.lazy())
    with pytest.raises(DataError, match="value"):
        datasets.load("echonest", tmp_path)


def test_the_real_one(ml_100k, monkeypatch):
    monkeypatch.undo()
    data = ml_100k
    assert (data.n_users, data.n_items, len(data)) == (942, 1447, 55_375)
    known = datasets.info("ml-100k")
    with datasets.opened("ml-100k") as raw:
        table = raw.rows.collect()
    assert movielens.checksum(table) == movielens.RATINGS_SHA256
    assert table.height == known.n_rows
    assert table["user"].n_unique() == known.n_users
    assert table["item"].n_unique() == known.n_items
    assert data.item_table["item_id"].to_list() == data.item_ids.to_list()
    assert data.titles(["50"]) == ["Star Wars (1977)"]

"""``nearfar prepare``: recipes, the paper's rules, what is known about items, and being killed."""

import csv
import gzip
import html
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

import nearfar as nf
from nearfar.runtime import store

SHARED = Path(__file__).parents[3] / "shared" / "data"
BOOKS = (
    '"User-ID";"ISBN";"Book-Rating"\n"1";"a";"9"\n"1";"b";"5"\n"2";"a"\n"2";"a";"7"\n"2";"c";"0"\n'
)


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "bx"
    folder.mkdir()
    (folder / "BX-Book-Ratings.csv").write_text(BOOKS, "latin-1")
    (folder / "BX-Books.csv").write_text(
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"S";"M";"L"\n'
        '"a";"Dune";"Herbert";"1965";"x";"";"";""\n"b";"Caf\xe9";"Y";"1999";"x";"";"";""\n',
        "latin-1",
    )
    return folder


def manifest(folder):
    return json.loads((folder / store.MANIFEST).read_text())


def test_like_paper_and_a_flag_over_it(books, ok, as_json, run, tmp_path):
    words = ["prepare", books, "--recipe", "book-crossing", "--like-paper"]
    code, _, err = run(*words, "-o", tmp_path / "no")
    assert code == 1
    assert "Nothing is left after this step: users with at least 11 items" in err
    assert not (tmp_path / "no").exists()
    text = ok(*words, "--min-user-items", 1, "-o", tmp_path / "d")
    assert "users                               2            3,593\n" in text
    assert "1 lines could not be read and were left out:\n  line 4: " in text
    data = nf.Interactions.load(tmp_path / "d")
    assert data.to_frame().rows() == [("1", "a"), ("1", "b"), ("2", "a")]
    assert data.titles(["a", "b"]) == ["Dune", "Café"]
    meta = manifest(tmp_path / "d")
    assert meta["nearfar"] == nf.__version__
    made = meta["meta"]["made"]
    assert made["recipe"] == "book-crossing"
    assert made["rules"]["min_value"] == 5
    assert made["rules"]["min_user_items"] == 1
    assert [step["n_pairs"] for step in made["steps"]] == [4, 3, 3]
    rejected = store.load_folder(tmp_path / "d", kind="interactions").frames["rejected"]
    assert rejected["line"].to_list() == [4]
    found = as_json(*words, "--min-user-items", 1, "-o", tmp_path / "d")
    assert found["n_rejected"] == 1


def counts(pairs, min_user_items, min_item_users=1):
    """Filter once, users first; give the numbers of users, items and pairs."""
    of_users = Counter(user for user, _ in pairs)
    pairs = {pair for pair in pairs if of_users[pair[0]] >= min_user_items}
    of_items = Counter(item for _, item in pairs)
    pairs = {pair for pair in pairs if of_items[pair[1]] >= min_item_users}
    users, items = zip(*pairs, strict=True)
    return {"n_users": len(set(users)), "n_items": len(set(items)), "n_pairs": len(pairs)}


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_the_real_fragments_give_the_counts_of_a_few_plain_lines(as_json, tmp_path):
    path = SHARED / "raw-book-crossing-fragment.csv.gz"
    with gzip.open(path, "rt", encoding="latin-1", newline="") as file:
        rows = list(csv.reader(file, delimiter=";", escapechar="\\"))
    pairs = {(user, html.unescape(isbn)) for user, isbn, rating in rows if int(rating) >= 5}
    found = as_json("prepare", path, "--recipe", "book-crossing", "--like-paper",
                    "-o", tmp_path / "b")  # fmt: skip
    assert {key: found[key] for key in counts(pairs, 11)} == counts(pairs, 11)
    assert found["n_rejected"] == 0
    path = SHARED / "raw-echonest-fragment.txt.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = [line.split("\t") for line in file.read().splitlines()]
    pairs = {(user, song) for user, song, plays in rows if int(plays) >= 5}
    found = as_json("prepare", path, "--recipe", "echonest", "--like-paper",
                    "--min-user-items", 6, "-o", tmp_path / "e")  # fmt: skip
    assert {key: found[key] for key in counts(pairs, 6, 5)} == counts(pairs, 6, 5)


def test_like_paper_needs_a_data_set_of_the_paper(run, tmp_path):
    (tmp_path / "t.csv").write_text("user,item\n1,2\n")
    code, _, err = run("prepare", tmp_path / "t.csv", "-o", tmp_path / "d", "--like-paper")
    assert code == 2
    assert "`--like-paper` belongs to --recipe amazon, book-crossing, echonest; the recipe" in err


def test_a_path_wins_over_the_name_of_a_data_set(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "ml-1m").mkdir(parents=True)
    (tmp_path / "cache" / "ml-1m" / "ml-1m.zip").write_bytes(b"no zip")
    code, _, err = run("prepare", "ml-1m", "-o", tmp_path / "d")
    assert code == 1
    assert "ml-1m.zip" in err
    (tmp_path / "ml-1m").write_text("1\t2\n3\t2\n")
    code, out, _ = run("prepare", "ml-1m", "--separator", "\t", "--no-header", "-o", tmp_path / "d")
    assert code == 0, out
    assert nf.Interactions.load(tmp_path / "d").n_users == 2


def test_titles_of_a_table_are_printed_by_recommend_and_similar(ok, as_json, tmp_path):
    pairs = [(u, i) for u in range(12) for i in range(12) if (u + i) % 2 == 0 and u != i]
    pl.DataFrame(pairs, schema=["user", "item"], orient="row").write_parquet(tmp_path / "t.parquet")
    titles = "item_id,title\n" + "".join(f"{i},Title {i}\n" for i in range(11)) + "x,none\n99,no\n"
    (tmp_path / "titles.csv").write_text(titles)
    ok("prepare", tmp_path / "t.parquet", "-o", tmp_path / "d", "--items", tmp_path / "titles.csv")
    ok("fit", tmp_path / "d", "-o", tmp_path / "m", "--epochs", 2, "--dim", 4, "--no-progress")
    text = ok("recommend", tmp_path / "m", "--user", 3, "--k", 12)
    assert "title" in text
    assert "Title 3" in text
    found = as_json("similar", tmp_path / "m", "--item", 4, "--k", 11)["neighbours"][0]["nearest"]
    assert {(one["item_id"], one["title"]) for one in found} == {
        (i, f"Title {i}" if i < 11 else None) for i in range(12) if i != 4
    }
    assert (
        "title"
        not in as_json("similar", tmp_path / "m", "--user", 4)["neighbours"][0]["nearest"][0]
    )


@pytest.mark.parametrize(
    ("header", "flags"),
    [("item_id", ()), ("item", ()), ("itemId", ()), ("what", ("--user", "who", "--item", "what"))],
)
def test_the_ids_of_items_have_the_name_that_the_log_gives_them(run, tmp_path, header, flags):
    (tmp_path / "t.csv").write_text("who,what\n1,2\n" if flags else "user,item\n1,2\n")
    (tmp_path / "i.csv").write_text(f"{header},title\n2,Tea\n")
    code, _, err = run("prepare", tmp_path / "t.csv", "-o", tmp_path / "d", *flags,
                       "--items", tmp_path / "i.csv")  # fmt: skip
    assert code == 0, err
    assert nf.Interactions.load(tmp_path / "d").titles(["2"]) == ["Tea"]


def test_a_threshold_names_the_flag_of_the_column_that_it_needs(run, tmp_path):
    (tmp_path / "t.csv").write_text("user,item,rating\n1,2,5\n")
    words = ("prepare", tmp_path / "t.csv", "-o", tmp_path / "d", "--min-value", "1")
    code, _, err = run(*words)
    assert code == 2
    assert "pass its name as `--value`" in err
    assert not (tmp_path / "d").exists()
    assert run(*words, "--repeats", "sum")[0] == 0


def test_items_that_will_not_do(run, tmp_path):
    (tmp_path / "t.csv").write_text("user,item\n1,2\n")
    (tmp_path / "i.csv").write_text("id,title\n2,a\n")
    (tmp_path / "j.csv").write_text("item_id,title\n2,a\n2,b\n")
    for name, message in (("i", "named as in the log, or item_id; it has id, title"),
                          ("j", "has '2' more than once; keep one row an item")):  # fmt: skip
        code, _, err = run("prepare", tmp_path / "t.csv", "-o", tmp_path / "d",
                           "--items", tmp_path / f"{name}.csv")  # fmt: skip
        assert code == 1
        assert message in err
        assert not (tmp_path / "d").exists()


def test_a_folder_that_holds_something_else_is_refused_before_the_work(run, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("x")
    code, _, err = run("prepare", tmp_path / "missing.csv", "-o", tmp_path / "d")
    assert code == 1
    assert "thesis.tex" in err
    assert os.listdir(tmp_path / "d") == ["thesis.tex"]


def test_the_steps_are_shown(books, run, tmp_path):
    words = ["prepare", books, "--recipe", "book-crossing", "-o", tmp_path / "d"]
    assert run(*words, "--no-progress")[2] == ""
    shown = run(*words, "--progress")[2]
    for stage in ("opening the file", "finding the users", "reading the pairs", "4 of 4", "saving"):
        assert stage in shown


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
@pytest.mark.full
def test_a_killed_prepare_leaves_nothing_that_looks_finished(ok, tmp_path):
    rows = "".join(f"u{n % 9173},i{n % 739},{n % 5}\n" for n in range(600_000))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(rows.encode(), 1))
    words = ["prepare", str(tmp_path / "log.csv.gz"), "--no-header", "-o", str(tmp_path / "d"),
             "--value", "2", "--min-value", "2"]  # fmt: skip
    killed = 0
    for wait in (0.1, 0.6):
        code = "from nearfar.cli import main; print('begun', flush=True); main()"
        child = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.stdout.close()
        killed += child.wait() == -signal.SIGKILL
        if child.returncode == -signal.SIGKILL:
            with pytest.raises(nf.errors.StoreError, match=r"does not exist|has no nearfar.json"):
                nf.Interactions.load(tmp_path / "d")
    assert killed
    ok(*words)
    data = nf.Interactions.load(tmp_path / "d")
    expected = {(f"u{n % 9173}", f"i{n % 739}") for n in range(600_000) if n % 5 >= 2}
    assert data.n_pairs == len(expected)
    assert not [name for name in os.listdir(tmp_path / "d") if name.endswith(".tmp")]

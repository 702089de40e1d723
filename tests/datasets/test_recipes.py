import ast
import bz2
import csv
import gzip
import html
import io
import json
import lzma
import random
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.datasets import amazon, book_crossing, echonest, lastfm, movielens, sieve
from nearfar.datasets.recipes import RECIPES
from nearfar.errors import DataError, EmptyDataError, MissingColumnError
from nearfar.prepare.rules import Rules

SHARED = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real data of ../shared/data are not here"
)


@pytest.fixture
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def in_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def every_form(folder, files):
    """Put the files, the one with the rows first, everywhere they may be; gives the paths."""
    main = next(iter(files))
    for place in ("plain", "above/below", "packed", "apart", "zips"):
        (folder / place).mkdir(parents=True)
    for name, content in files.items():
        (folder / "plain" / name).write_bytes(content)
        (folder / "above" / "below" / name).write_bytes(content)
        (folder / "packed" / f"{name}.gz").write_bytes(gzip.compress(content))
        if name != main:
            (folder / "apart" / name).write_bytes(content)
    below = {f"some/{name}": content for name, content in files.items()}
    in_zip(folder / "all.zip", {"__MACOSX/some/._" + main: b"noise", **below})
    in_zip(folder / "zips" / "all.zip", below)
    in_zip(folder / "apart" / f"{main}.zip", {main: files[main]})
    return [
        folder / "plain" / main, folder / "plain", folder / "above", folder / "packed",
        folder / "packed" / f"{main}.gz", folder / "all.zip", folder / "zips",
        folder / "apart" / f"{main}.zip", folder / "apart",
    ]  # fmt: skip


def random_log(n=500, seed=0, ratings=(1, 2, 3, 4, 5)):
    draw = random.Random(seed)
    return [
        (str(draw.randrange(1, 40)), str(draw.randrange(1, 60)), draw.choice(ratings),
         draw.randrange(8 * 10**8, 15 * 10**8))
        for _ in range(n)
    ]  # fmt: skip


def tabbed(rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


# --- Book-Crossing


def mysql(*fields):
    """A line as MySQL's export writes it."""
    escaped = [str(f).replace("\\", "\\\\").replace('"', '\\"') for f in fields]
    return ";".join(f'"{field}"' for field in escaped)


RATINGS_HEADER = mysql("User-ID", "ISBN", "Book-Rating")
BOOKS_HEADER = mysql(
    "ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S",
    "Image-URL-M", "Image-URL-L",
)  # fmt: skip
URLS = ("http://s", "http://m", "http://l")
BOOKS = {
    "034545104X": ('Flesh; Tones: "A Novel"', "M. J. Rose", "2002", "Ballantine & Sons"),
    "078946697X": ('Creating the X-Men (Level 4)"', "Michael Teitelbaum", "2000", "DK"),
    "2070423204": ("Les Bergers à l'été", "Le Clézio", "0", "Gallimard \\ Folio"),
}


def book_files(ratings, *, header=True, end="\r\n"):
    books = [mysql(isbn, *map(html.escape, about), *URLS) for isbn, about in BOOKS.items()]
    lines = [RATINGS_HEADER] * header + [mysql(*row) for row in ratings]
    return {
        "BX-Book-Ratings.csv": "".join(line + end for line in lines).encode("latin-1"),
        "BX-Books.csv": "".join(f"{line}\n" for line in [BOOKS_HEADER, *books]).encode("latin-1"),
    }


@pytest.mark.parametrize("header", [True, False])
def test_book_crossing_round_trip(tmp_path, scratch, header):
    rows = [(u, f"0{i}X", r) for u, i, r, _ in random_log(ratings=range(11))]
    for path in every_form(tmp_path, book_files(rows, header=header)):
        raw = book_crossing.read(path, scratch)
        assert raw.rows.collect().rows() == rows, path
        assert raw.rows.collect_schema() == {
            "user": pl.String, "item": pl.String, "value": pl.Int64,
        }  # fmt: skip
        assert raw.items.columns == ["item_id", "title", "author", "year", "publisher"]
        assert raw.items.rows() == [(isbn, *about) for isbn, about in BOOKS.items()], path
        assert raw.rejected.is_empty()
        assert re.fullmatch(rf"line {8 + header} of '.*BX-Book-Ratings.csv(.gz)?'", raw.where(7))


def test_book_crossing_lists_its_dirt_and_repairs_what_is_clear(tmp_path, scratch):
    # line by line: what is written, and what must become of it: a row, or a reason
    lines = [
        ('"User-ID";"ISBN";"Book-Rating"', None),
        ('"1";"0345\\"45";"8"', ("1", '0345"45', 8)),
        ('"1";"\\"880\\"";"0"', ("1", '"880"', 0)),
        ('"1";"0345\\\\";"10"', ("1", "0345\\", 10)),
        ('"1";"0345\\";"7"', ("1", "0345\\", 7)),
        ('"1";"03"45";"7"', ("1", '03"45', 7)),
        ('"1";"0440&gt;&gt;3 &amp; &#39;x&#39;";"7"', ("1", "0440>>3 & 'x'", 7)),
        ('"1";"393\xdf70;4064";"10"', ("1", "393ß70;4064", 10)),
        ('"1";" 0 7322 x";"5"', ("1", " 0 7322 x", 5)),
        ("", None),
        ('"1";"034545104X";"11"', "the rating is not an integer from 0 to 10"),
        ('"1";"034545104X";"-1"', "the rating is not an integer from 0 to 10"),
        ('"1";"034545104X";"7.5"', "the rating is not an integer from 0 to 10"),
        ('"1";"034545104X";""', "the rating is not an integer from 0 to 10"),
        ('"x";"034545104X";"1"', "the user is not a number"),
        ('"";"034545104X";"1"', "the user is not a number"),
        ('"1";"";"1"', "the ISBN is missing"),
        ('"1";"&nbsp;";"1"', "the ISBN is missing"),
        ('"1";"034545104X"', "does not have 3 quoted fields"),
        ('"1";"034545104X";"2";"3"', "does not have 3 quoted fields"),
        ('"', "does not have 3 quoted fields"),
    ]
    good = [(f'"2";"{i}";"5"', ("2", str(i), 5)) for i in range(9)]
    written = "\n".join(line for line, _ in [*lines, *good])
    (tmp_path / "BX-Book-Ratings.csv").write_bytes(written.encode("latin-1"))
    raw = book_crossing.read(tmp_path, scratch)
    fates = list(enumerate([fate for _, fate in [*lines, *good]], 1))
    rows = [(number, fate) for number, fate in fates if isinstance(fate, tuple)]
    assert raw.rows.collect().rows() == [row for _, row in rows]
    assert raw.rejected.rows() == [
        (number, fate, lines[number - 1][0]) for number, fate in fates if isinstance(fate, str)
    ]
    for i, (number, _) in enumerate(rows):
        assert raw.where(i).startswith(f"line {number} of '")
    assert raw.items is None


def test_malformed_books_are_listed_too(tmp_path, scratch):
    files = book_files([("1", "034545104X", 5), ("2", "2070423204", 6)])
    files["BX-Books.csv"] += (
        b'"1";"too";"few"\n' + mysql("034545104X", "Again", "A", "1999", "B", *URLS).encode()
    )
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    raw = book_crossing.read(tmp_path, scratch)
    assert raw.items["item_id"].to_list() == list(BOOKS)
    assert raw.rejected.rows() == [
        (5, "BX-Books.csv: does not have 8 quoted fields", '"1";"too";"few"'),
        (6, "BX-Books.csv: describes '034545104X' again",
         mysql("034545104X", "Again", "A", "1999", "B", *URLS)),
    ]  # fmt: skip


LATIN = st.text(
    st.characters(max_codepoint=255, exclude_characters="\n\r&"), min_size=1, max_size=8
)


@given(isbns=st.lists(LATIN.filter(lambda isbn: isbn.strip()), min_size=1, max_size=20))
def test_any_isbn_comes_back(tmp_path_factory, isbns):
    folder = tmp_path_factory.mktemp("book")
    lines = [mysql(7, isbn, i % 11) for i, isbn in enumerate(isbns)]
    (folder / "ratings.csv").write_bytes("\n".join(lines).encode("latin-1"))
    raw = book_crossing.read(folder / "ratings.csv", folder)
    assert raw.rows.collect()["item"].to_list() == isbns
    assert raw.rejected.is_empty()


def test_a_file_that_is_mostly_malformed_is_refused(tmp_path, scratch, monkeypatch):
    file = tmp_path / "BX-Book-Ratings.csv"
    good, bad = mysql(1, "0345", 5) + "\n", "user,item,1\n"
    file.write_text(good * 3 + bad * 3)
    assert book_crossing.read(file, scratch).rejected.height == 3
    file.write_text(good * 3 + bad * 4)
    message = (
        r"4 of the first 7 lines of '.*BX-Book-Ratings.csv' are malformed, the first of them line "
        r"4 \(does not have 3 quoted fields\): 'user,item,1'. Lines must be \"user\";\"ISBN\";"
    )
    with pytest.raises(DataError, match=message):
        book_crossing.read(file, scratch)
    file.write_text(RATINGS_HEADER + "\n\n")
    with pytest.raises(EmptyDataError, match=r"BX-Book-Ratings.csv' has no lines"):
        book_crossing.read(file, scratch)
    monkeypatch.setattr(sieve, "PATIENCE", 2)  # bad lines, then the rest is not looked at
    file.write_text(good + bad * 3 + good * 5)
    with pytest.raises(DataError, match="3 of the first 4 lines"):
        book_crossing.read(file, scratch)
    file.write_text(bad * 2 + good * 5)
    assert book_crossing.read(file, scratch).rejected.height == 2


def test_a_long_rejected_line_is_kept_in_part(tmp_path, scratch):
    (tmp_path / "a.csv").write_text("x" * 10_000 + "\n" + mysql(1, "2", 3))
    raw = book_crossing.read(tmp_path / "a.csv", scratch)
    assert raw.rejected["text"].to_list() == ["x" * sieve.SHOWN]


# --- Echonest


def song(number):
    return f"SO{number:016X}"


def track(number):
    return f"TR{number:016X}"


PLAYS = [
    ("ann", song(3), 4), ("ann", song(1), 2), ("bob", song(2), 7), ("bob", song(9), 3),
    ("eve", song(5), 1), ("ann", song(4), 5), ("ann", song(6), 2), ("eve", song(8), 6),
]  # fmt: skip
TRACKS = [
    (3, "The  Artist", "A Song"),
    (1, "the artist ", "A SONG"),  # the same but for case and blanks
    (2, "The Artist", "ﬁn\uff45"),
    (4, "THE ARTIST", "fine"),  # the same after NFKC
    (4, "The Artist", "A Song"),  # a second description of song 4, which does not count
    (5, "The Artist", ""),
    (6, "The Artist", ""),  # nothing is known of the titles, so they are not the same
    (8, "The Artist", "Fine"),  # a mismatch, so it stays alone
    (0, "the artist", "a song"),  # nobody played it, yet it is the smallest
]
ONE = {1: 0, 3: 0, 4: 2}


def echonest_files():
    names = {number: f"{artist} - {title}" for number, artist, title in TRACKS}
    wrong = [
        f"ERROR: <{song(8)} {track(8)}> {names[8]}  !=  Someone - Else\n".encode(),
        f"ERROR: <{song(77)} {track(77)}> Caf\xe9  !=  Someone - Else\n".encode("latin-1"),
        b"not an error\n",
    ]
    tracks = [f"{track(i)}<SEP>{song(n)}<SEP>{a}<SEP>{t}\n" for i, (n, a, t) in enumerate(TRACKS)]
    return {
        "train_triplets.txt": tabbed(PLAYS),
        "unique_tracks.txt": "".join([*tracks, "TR<SEP>SO\n"]).encode(),
        "sid_mismatches.txt": b"".join(wrong),
    }


def test_echonest_round_trip(tmp_path, scratch):
    for path in every_form(tmp_path, echonest_files()):
        raw = echonest.read(path, scratch)
        assert raw.rows.collect().rows() == [
            (u, song(ONE.get(int(s[2:], 16), int(s[2:], 16))), plays,
             echonest.MISMATCH if s == song(8) else None)
            for u, s, plays in PLAYS
        ]  # fmt: skip
        assert raw.rows.collect_schema()["value"] == pl.Int64
        assert dict(zip(raw.items["item_id"], raw.items["artist"], strict=True)) == {
            song(2): "The Artist", song(5): "The Artist", song(6): "The Artist",
            song(0): "the artist",
        }  # fmt: skip
        assert raw.items.columns == ["item_id", "title", "artist"]
        packed = ".gz" if "packed" in path.parts else ""
        assert raw.rejected.rows() == [
            (3, f"sid_mismatches.txt{packed}: does not name a song and a track",
             "not an error"),
            (10, f"unique_tracks.txt{packed}: does not have 4 fields separated by <SEP>",
             "TR<SEP>SO"),
        ]  # fmt: skip
        assert re.fullmatch("line 3 of '.*train_triplets.txt(.gz)?'", raw.where(2))


def test_echonest_without_the_other_files(tmp_path, scratch):
    files = echonest_files()
    (tmp_path / "train_triplets.txt").write_bytes(files["train_triplets.txt"])
    raw = echonest.read(tmp_path, scratch)
    assert raw.rows.collect().rows() == PLAYS
    assert raw.items is None
    (tmp_path / "unique_tracks.txt").write_bytes(files["unique_tracks.txt"])
    rows = echonest.read(tmp_path, scratch).rows.collect()
    assert "dropped" not in rows.columns
    assert rows["item"][-1] == song(2)  # no longer a mismatch, so a copy of song 2


def test_songs_that_are_all_mismatches(tmp_path, scratch):
    (tmp_path / "train_triplets.txt").write_bytes(tabbed(PLAYS))
    (tmp_path / "unique_tracks.txt").write_text(f"{track(8)}<SEP>{song(8)}<SEP>a<SEP>b\n")
    (tmp_path / "sid_mismatches.txt").write_text(f"ERROR: <{song(8)} {track(8)}> a  !=  b\n")
    raw = echonest.read(tmp_path, scratch)
    assert raw.items.is_empty()
    assert raw.rows.collect()["dropped"].null_count() == len(PLAYS) - 1


def test_the_order_of_many_rows_stays(tmp_path, scratch):
    rows = [(u, song(int(i)), t % 9 + 1) for u, i, _, t in random_log(60_000)]
    (tmp_path / "train_triplets.txt").write_bytes(tabbed(rows))
    tracks = [f"T<SEP>{song(i)}<SEP>a<SEP>title {i // 2}\n" for i in range(60)]
    (tmp_path / "unique_tracks.txt").write_text("".join(tracks))
    wrong = "".join(f"ERROR: <{song(i)} {track(i)}> x\n" for i in range(50, 60))
    (tmp_path / "sid_mismatches.txt").write_text(wrong)
    expected = []
    for user, item, plays in rows:
        number = int(item[2:], 16)
        bad = number >= 50
        expected.append((user, item if bad else song(number // 2 * 2), plays,
                         echonest.MISMATCH if bad else None))  # fmt: skip
    lazy = echonest.read(tmp_path, scratch).rows
    assert lazy.collect().rows() == expected
    assert lazy.collect(engine="streaming").rows() == expected


# --- MovieLens

FILMS = {
    "1": ("Toy Story (1995)", ["Animation", "Children's", "Comedy"]),
    "2": ("Misérables, Les (1995)", ["Drama"]),
    "3": ("unknown", []),
    "11": ('American President, The "AP" (1995)', ["Film-Noir", "Sci-Fi"]),
}
FILM_ROWS = [(item, title, " | ".join(genres) or None) for item, (title, genres) in FILMS.items()]
FLAGS = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]  # fmt: skip


def as_100k(log):
    films = [
        "|".join([item, title, "01-Jan-1995", "", "http", *(str(int(f in genres)) for f in FLAGS)])
        for item, (title, genres) in FILMS.items()
    ]
    return {"u.data": tabbed(log), "u.item": "\n".join(films).encode("latin-1")}


def as_1m(log):
    films = [f"{i}::{title}::{'|'.join(genres)}\n" for i, (title, genres) in FILMS.items()]
    rows = ["::".join(map(str, row)) + "\n" for row in log]
    return {"ratings.dat": "".join(rows).encode(), "movies.dat": "".join(films).encode("latin-1")}


def as_10m(log):
    files = as_1m(log)
    return {**files, "movies.dat": files["movies.dat"].decode("latin-1").encode()}


def as_25m(log):
    def table(*rows):
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode()

    films = [(i, title, "|".join(genres) or "(no genres listed)")
             for i, (title, genres) in FILMS.items()]  # fmt: skip
    return {
        "ratings.csv": table(("userId", "movieId", "rating", "timestamp"), *log),
        "movies.csv": table(("movieId", "title", "genres"), *films),
    }


def as_recbole(log):
    films = [("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")]
    for item, (title, genres) in FILMS.items():
        name, year = (title[:-7], title[-5:-1]) if title != "unknown" else ("unkonwn", "unkonwn")
        films.append((item, name, year, " ".join(genres)))
    header = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return {"ml-100k.inter": tabbed([header, *log]), "ml-100k.item": tabbed(films)}


@pytest.mark.parametrize("written", [as_100k, as_1m, as_10m, as_25m, as_recbole])
@pytest.mark.parametrize("halves", [False, True])
def test_movielens_round_trip(tmp_path, scratch, written, halves):
    log = random_log(ratings=(0.5, 3.5, 4.0, 5.0) if halves else (1, 3, 5))
    for path in every_form(tmp_path, written(log)):
        raw = movielens.read(path, scratch)
        assert raw.rows.collect().rows() == log, path
        assert raw.rows.collect_schema() == {
            "user": pl.String, "item": pl.String, "value": pl.Float64 if halves else pl.Int64,
            "time": pl.Int64,
        }  # fmt: skip
        assert raw.items.columns == ["item_id", "title", "genres"]
        assert raw.items.rows() == FILM_ROWS, path
        assert raw.rejected.is_empty()


def test_movielens_lists_malformed_films(tmp_path, scratch):
    for written, bad in [
        (as_100k, "5|too few"), (as_1m, "5:title"), (as_25m, '5,"a" b,c'), (as_25m, "5,a"),
        (as_recbole, "5\ta"), (as_1m, "::a::b"),
    ]:  # fmt: skip
        (main, rows), (about, films) = written(random_log()).items()
        (tmp_path / main).write_bytes(rows)
        (tmp_path / about).write_bytes(films.rstrip(b"\n") + b"\n" + bad.encode())
        raw = movielens.read(tmp_path / main, scratch)
        assert raw.items.rows() == FILM_ROWS
        assert raw.rejected["text"].to_list() == [bad]
        assert raw.rejected["reason"][0].startswith(f"{about}: ")


@pytest.mark.parametrize(
    ("recipe", "written", "header"),
    [
        (movielens, as_25m, "movieId,title,genres"),
        (movielens, as_recbole, "item_id:token\tmovie_title\trelease_year\tclass"),
        (lastfm, lambda log: as_hetrec(PLAYED), "id\tname\turl\tpictureURL"),
        (book_crossing, lambda log: book_files([(1, "2", 3)]), BOOKS_HEADER),
    ],
)
def test_a_header_further_below_is_a_line_like_others(tmp_path, scratch, recipe, written, header):
    (main, rows), (about, items), *_ = written(random_log()).items()
    (tmp_path / main).write_bytes(rows)
    (tmp_path / about).write_bytes(items)
    found = recipe.read(tmp_path / main, scratch).items
    (tmp_path / about).write_bytes(items.rstrip(b"\r\n") + b"\n\n" + header.encode())
    assert recipe.read(tmp_path / main, scratch).items.height == found.height + 1
    (tmp_path / about).write_bytes(b"\n" + items)
    assert recipe.read(tmp_path / main, scratch).items.equals(found)


def test_a_header_among_the_ratings_is_rejected(tmp_path, scratch):
    lines = [RATINGS_HEADER, mysql("1", "2", "3"), RATINGS_HEADER]
    (tmp_path / "BX-Book-Ratings.csv").write_text("\n".join(lines))
    raw = book_crossing.read(tmp_path, scratch)
    assert raw.rows.collect().rows() == [("1", "2", 3)]
    assert raw.rejected.rows() == [(3, "the user is not a number", RATINGS_HEADER)]


def test_the_checksum_does_not_depend_on_order_or_type():
    log = random_log(50)
    table = pl.DataFrame(log, schema=["user", "item", "value", "time"], orient="row")
    expected = movielens.checksum(table)
    assert movielens.checksum(table.reverse().with_columns(pl.col("value").cast(float))) == expected
    assert movielens.checksum(table[1:]) != expected
    with pytest.raises(DataError, match="must be integers"):
        movielens.checksum(table.with_columns(user=pl.lit("x")))


# --- Amazon

PRODUCTS = [
    {"asin": "0000143561", "categories": [["Movies & TV", "Movies"], ["Movies & TV", "Cooking"]],
     "title": "Everyday \"Italian\" &amp; More", "price": 12.99, "related": {"also": ["1"]}},
    {"asin": "B00X", "title": "Café d'été", "brand": "Some\\ Brand", "price": "$1,012.50"},
    {"asin": "B00Y", "category": ["Movies", "x &amp; y"], "price": "from $3"},
    {"asin": "B00Z", "title": None, "price": True},
]  # fmt: skip
PRODUCT_ROWS = [
    ("0000143561", 'Everyday "Italian" & More', "Movies & TV | Movies | Cooking", None, 12.99),
    ("B00X", "Café d'été", None, "Some\\ Brand", 1012.5),
    ("B00Y", None, "Movies | x & y", None, None),
    ("B00Z", None, None, None, None),
]


def amazon_log():
    return [(f"A{u}SUAM1J3GNN", f"{int(i):010}", r, t) for u, i, r, t in random_log()]


def as_reviews(log, written=str):
    reviews = [
        json.dumps({
            "reviewerID": user, "asin": item, "reviewerName": "J. \u00d6. \"X\"", "helpful": [2, 3],
            "reviewText": "good\n\tor\\not", "overall": float(value), "summary": "\ud83d\ude00",
            "unixReviewTime": time, "reviewTime": "09 13, 2009",
        }) + "\n"
        for user, item, value, time in log
    ]  # fmt: skip
    about = "".join(written(product) + "\n" for product in PRODUCTS)
    return {
        "reviews_Movies_and_TV_5.json": "".join(reviews).encode(),
        "meta_Movies_and_TV.json": about.encode(),
    }


def as_ratings(log):
    rows = "".join(f"{user},{item},{float(value)},{time}\n" for user, item, value, time in log)
    about = "".join(json.dumps(product) + "\n" for product in PRODUCTS)
    return {
        "ratings_Movies_and_TV.csv": rows.encode(),
        "meta_Movies_and_TV.json": about.encode(),
    }


@pytest.mark.parametrize(
    "written", [as_reviews, lambda log: as_reviews(log, json.dumps), as_ratings]
)
def test_amazon_round_trip(tmp_path, scratch, written):
    log = amazon_log()
    for path in every_form(tmp_path, written(log)):
        raw = amazon.read(path, scratch)
        assert raw.rows.collect().rows() == log, path
        assert raw.rows.collect_schema() == {
            "user": pl.String, "item": pl.String, "value": pl.Int64, "time": pl.Int64,
        }  # fmt: skip
        assert raw.items.columns == ["item_id", "title", "categories", "brand", "price"]
        assert raw.items.rows() == PRODUCT_ROWS, path
        assert raw.rejected.is_empty()


def test_amazon_lists_malformed_products(tmp_path, scratch):
    (main, reviews), (about, products) = as_reviews(amazon_log()).items()
    bad = {
        "{'asin': open('x')}": "is neither JSON nor a Python dictionary",
        "(" * 2000: "is neither JSON nor a Python dictionary",
        "[" * 20_000: "is neither JSON nor a Python dictionary",
        "['asin']": "is not an object",
        "{'title': 'x'}": "has no asin",
        '{"asin": 5}': "has no asin",
    }
    products += "".join(f"{line}\n" for line in bad).encode()
    products += b"{'asin': 'B1', 'title': 'a \\d escape'}\n" * 2
    products += b'{"asin": "B2", "title": "\\ud800"}\n'
    products += "".join(f'{{"asin": "C{i}"}}\n' for i in range(9)).encode()
    for name, content in [(main, reviews), (about, products)]:
        (tmp_path / name).write_bytes(content)
    raw = amazon.read(tmp_path, scratch)
    assert raw.items["title"].to_list()[4] == "a \\d escape"
    assert raw.rejected["reason"].to_list() == [
        f"{about}: {reason}" for reason in [*bad.values(), "describes 'B1' again",
                                            "has half of a surrogate pair"]
    ]  # fmt: skip
    with pytest.raises(SyntaxError):  # so these lines were worth a test
        ast.literal_eval("(" * 2000)


def test_products_of_another_category_are_not_taken(tmp_path, scratch):
    files = as_ratings(amazon_log())
    (tmp_path / "ratings_Books.csv").write_bytes(files["ratings_Movies_and_TV.csv"])
    (tmp_path / "meta_Movies_and_TV.json").write_bytes(files["meta_Movies_and_TV.json"])
    assert amazon.read(tmp_path, scratch).items is None
    (tmp_path / "fragment.json").write_bytes(
        as_reviews(amazon_log())["reviews_Movies_and_TV_5.json"]
    )
    assert amazon.read(tmp_path / "fragment.json", scratch).rows.collect().rows() == amazon_log()


def test_the_files_of_2018_are_refused(tmp_path, scratch):
    rows = "".join(f"{i},{u},{r}.0,{t}\n" for u, i, r, t in amazon_log())
    (tmp_path / "Movies_and_TV.csv").write_text(rows)
    with pytest.raises(
        DataError, match=r"Movies_and_TV.csv' seems to have the item before the user"
    ):
        amazon.read(tmp_path / "Movies_and_TV.csv", scratch)


# --- Last.fm


def as_hetrec(plays):
    artists = [("1", "MALICE MIZER", "http://1", "http://p/1"), ("2", 'Café "Ol"', "http://2", "")]
    header = ("id", "name", "url", "pictureURL")
    rows = tabbed([("userID", "artistID", "weight"), *plays]).replace(b"\n", b"\r\n")
    return {
        "user_artists.dat": rows,
        "artists.dat": tabbed([header, *artists]).replace(b"\n", b"\r\n"),
        "tags.dat": b"tagID\ttagValue\r\n",
    }


def test_lastfm_round_trip(tmp_path, scratch):
    plays = [(user, item, time) for user, item, _, time in random_log()]
    for path in every_form(tmp_path, as_hetrec(plays)):
        raw = lastfm.read(path, scratch)
        assert raw.rows.collect().rows() == plays
        assert raw.rows.collect_schema()["value"] == pl.Int64
        assert raw.items.rows() == [
            ("1", "MALICE MIZER", "http://1"), ("2", 'Café "Ol"', "http://2"),
        ]  # fmt: skip
        assert raw.rejected.is_empty()


def test_lastfm_lists_malformed_artists(tmp_path, scratch):
    for name, content in as_hetrec([("1", "2", 3)]).items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "artists.dat").open("ab") as file:
        file.write(b"3\tCaf\xe9\tu\tp\n4\ttoo few\n")
    raw = lastfm.read(tmp_path, scratch)
    assert raw.rejected.rows() == [
        (4, "artists.dat: is not utf-8", "3\tCaf�\tu\tp"),
        (5, "artists.dat: does not have 4 fields", "4\ttoo few"),
    ]
    assert raw.items.height == 2


# --- what is wrong with a strict source is one error, which names the line


def with_line(files, line):
    (main, content), *others = files.items()
    return {main: content + line.encode() + b"\n", **dict(others)}


LOG = random_log(20)
PLAYED = [(user, item, 5) for user, item, _, _ in LOG]
REVIEW = '{"reviewerID": %s, "asin": %s, "overall": %s, "unixReviewTime": %s}'
STRICT = [
    (movielens, as_100k(LOG), "1\t2\tx\t4", 21, "value .* must be a finite number; got 'x'"),
    (movielens, as_100k(LOG), "1\t2\tinf\t4", 21, "value .* must be a finite number; got 'inf'"),
    (movielens, as_100k(LOG), "1\t2\t3\t4.5", 21, "time .* must be a whole number of seconds"),
    (movielens, as_100k(LOG), "1\t2\t3\t", 21, "time .* got None"),
    (movielens, as_100k(LOG), "\t2\t3\t4", 21, "user .* must be an id as text; got None"),
    (movielens, as_100k(LOG), "1\t2\t3", 21, "3 fields"),
    (movielens, as_1m(LOG), "1::2:x:3::4", 21, "must be separated by '::'"),
    (movielens, as_1m(LOG), "1::2::3", 21, "5 fields"),
    (movielens, as_1m(LOG), "1::::3::4", 21, "item .* must be an id as text"),
    (movielens, as_25m(LOG), "1,2,,4", 22, "value .* got None"),
    (movielens, as_recbole(LOG), "1\t2\tnan\t4", 22, "value .* got 'nan'"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\ts\t0", 21, "at least 1; got '0'"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\ts\t-2", 21, "at least 1; got '-2'"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\ts\t1.5", 21, "at least 1; got '1.5'"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\ts\t1e300", 21, "at least 1"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\t\t1", 21, "item .* id as text"),
    (echonest, {"train_triplets.txt": tabbed(PLAYED)}, "u\ts", 21, "2 fields"),
    (lastfm, as_hetrec(PLAYED), "1\t2\tmany", 22, "at least 1; got 'many'"),
    (amazon, as_ratings(LOG), "a,b,five,1", 21, "value .* got 'five'"),
    (amazon, as_ratings(LOG), "a,b,5.0", 21, "3 fields"),
    (amazon, as_reviews(LOG), REVIEW % ('"a"', '"b"', "null", "1"), 21, "value .* got None"),
    (amazon, as_reviews(LOG), REVIEW % ('"a"', '""', "1", "1"), 21, "item .* id as text; got ''"),
    (amazon, as_reviews(LOG), REVIEW % ('"a"', '"b"', "1", "1.5"), 21, "time .* got 1.5"),
    (amazon, as_reviews(LOG), '{"asin": "b"}', 21, "user .* id as text; got None"),
    (amazon, as_reviews(LOG), "{'asin': 'b'}", 21, "JSON"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "files", "line", "number", "message"),
    STRICT, ids=[f"{case[0].__name__.rsplit('.')[-1]}-{case[2]}" for case in STRICT],
)  # fmt: skip
def test_a_wrong_line_is_an_error_that_names_it(
    tmp_path, scratch, recipe, files, line, number, message
):
    bad = with_line(files, line)
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    main = next(iter(bad))
    with pytest.raises(DataError, match=message) as caught:
        recipe.read(tmp_path / main, scratch)
    assert f"ine {number} " in str(caught.value)
    assert main in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "name", "content", "error", "message"),
    [
        (movielens, "u.data", "1\t2\n", DataError, r"must have 4 fields \(user, item, value, time"),
        (movielens, "ratings.dat", "1:2\n", DataError, r"must have 7 fields"),
        (
            movielens,
            "ratings.csv",
            "a,b\n1,2\n",
            MissingColumnError,
            "must have the columns userId",
        ),
        (movielens, "ratings.csv", "userId,movieId,rating,timestamp\n", EmptyDataError, "no rows"),
        (movielens, "u.data", "", EmptyDataError, "u.data"),
        (movielens, "a.txt", "1\t2\t3\t4\n", DataError, r"a.txt' must be u.data, ratings.dat"),
        (echonest, "train_triplets.txt", "1\t2\t3\t4\n", DataError, "must have 3 fields"),
        (
            lastfm,
            "user_artists.dat",
            "a\tb\n1\t2\n",
            MissingColumnError,
            "must have .* weight; got",
        ),
        (amazon, "a.csv", "a,b,c\n", DataError, "must have 4 fields"),
        (amazon, "a.json", '{"x": 1}\n', MissingColumnError, "reviewerID"),
        (amazon, "a.json", REVIEW % (1, '"b"', 1, 1), DataError, "user .* id as text; got 1"),
        (
            amazon,
            "a.json",
            REVIEW % ('"a"', '"b"', "true", 1),
            DataError,
            "finite number; got True",
        ),
    ],
)
def test_another_file_is_refused(tmp_path, scratch, recipe, name, content, error, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        recipe.read(tmp_path / name, scratch)


# --- finding the files


def test_what_cannot_be_found_or_opened(tmp_path, scratch):
    with pytest.raises(DataError, match=r"no file or folder '.*nowhere'; check the path"):
        lastfm.read(tmp_path / "nowhere", scratch)
    with pytest.raises(DataError, match=r"contains no user_artists.dat; pass the file itself"):
        lastfm.read(tmp_path, scratch)
    empty = in_zip(tmp_path / "other.zip", {"readme": b"", "x/user_artists.dat/": b""})
    with pytest.raises(DataError, match=r"other.zip' contains no user_artists.dat"):
        lastfm.read(empty, scratch)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataError, match=r"text.zip' is not a zip archive, is damaged"):
        lastfm.read(tmp_path / "text.zip", scratch)


def test_a_damaged_archive(tmp_path, scratch):
    content = as_hetrec([("1", str(i), i + 1) for i in range(5000)])
    whole = in_zip(tmp_path / "a.zip", content).read_bytes()
    for place in (len(whole) // 50, 200):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "b.zip").write_bytes(broken)
        with pytest.raises(DataError, match=r"b.zip' is not a zip archive, is damaged"):
            lastfm.read(tmp_path / "b.zip", scratch)
    encrypted = bytearray(whole)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + offset] |= 1
    (tmp_path / "c.zip").write_bytes(encrypted)
    with pytest.raises(DataError, match=r"c.zip' .*unpacked: .*(encrypted|password)"):
        lastfm.read(tmp_path / "c.zip", scratch)


def test_an_archive_with_damage_in_any_compression(tmp_path, scratch):
    content = tabbed([(1, i, 5) for i in range(300)])
    for how in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", how) as archive:
            archive.writestr("train_triplets.txt", content)
        whole = (tmp_path / "a.zip").read_bytes()
        for place in range(60, 120):
            (tmp_path / "a.zip").write_bytes(
                whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
            )
            with pytest.raises(DataError, match=r"a.zip' is not a zip archive, is damaged"):
                echonest.read(tmp_path / "a.zip", scratch)


def test_an_archive_with_a_name_that_cannot_be_decoded(tmp_path, scratch):
    whole = in_zip(tmp_path / "a.zip", {"Caf\u00e9 train_triplets.txt": b"1\t2\t3\n"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace("\u00e9".encode(), b"\xc3("))
    with pytest.raises(DataError, match=r"a.zip' is not a zip archive, is damaged.*utf-8"):
        echonest.read(tmp_path / "a.zip", scratch)


def test_several_files_that_could_be_meant(tmp_path, scratch):
    for size in ("1m", "10m"):
        (tmp_path / size).mkdir()
        (tmp_path / size / "ratings.dat").write_bytes(as_1m(LOG)["ratings.dat"])
    message = r"Several files in .*: 10m/ratings.dat, 1m/ratings.dat; pass the path of one of them"
    with pytest.raises(DataError, match=message):
        movielens.read(tmp_path, scratch)
    in_zip(tmp_path / "a.zip", {"1/ratings.dat": b"", "2/ratings.csv": b"", "1/2/u.data": b""})
    with pytest.raises(
        DataError, match=r"Several files in .*a.zip.*: 1/2/u.data, 1/ratings.dat, 2"
    ):
        movielens.read(tmp_path / "a.zip", scratch)
    (tmp_path / "zips").mkdir()
    for name in ("a", "b"):
        in_zip(tmp_path / "zips" / f"{name}.zip", as_1m(LOG))
    with pytest.raises(DataError, match=r"a.zip \(ratings.dat\), b.zip \(ratings.dat\)"):
        movielens.read(tmp_path / "zips", scratch)


def test_of_an_archive_the_file_with_the_fewest_folders_above_it(tmp_path, scratch):
    files = {"ml/old/u.data": tabbed(LOG[:3]), "ml/u.data": tabbed(LOG)}
    path = in_zip(tmp_path / "a.zip", files)
    assert movielens.read(path, scratch).rows.collect().rows() == LOG


def test_a_plain_file_goes_before_its_compressed_copy(tmp_path, scratch):
    (tmp_path / "u.data").write_bytes(tabbed(LOG))
    (tmp_path / "u.data.gz").write_bytes(gzip.compress(tabbed(LOG[:3])))
    assert movielens.read(tmp_path, scratch).rows.collect().height == len(LOG)


@pytest.mark.parametrize(("suffix", "pack"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_other_compressions(tmp_path, scratch, suffix, pack):
    for name, content in as_100k(LOG).items():
        (tmp_path / f"{name}.{suffix}").write_bytes(pack(content))
    raw = movielens.read(tmp_path, scratch)
    assert raw.rows.collect().rows() == LOG
    assert raw.items.rows() == FILM_ROWS


# --- the recipes, and the fragments of the real files


def test_the_recipes():
    assert set(RECIPES) == {"amazon", "book-crossing", "echonest", "lastfm", "movielens"}
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    papers = {name: recipe.paper for name, recipe in RECIPES.items() if recipe.paper is not None}
    assert {name: (p.n_users, p.n_items, p.n_pairs) for name, p in papers.items()} == {
        "amazon": (11_181, 94_661, 620_059),
        "book-crossing": (3_593, 127_339, 240_020),
        "echonest": (31_521, 159_063, 1_405_671),
    }
    assert papers["amazon"].rules == Rules(min_value=4, strictly=True, min_user_items=20)
    assert papers["book-crossing"].rules == Rules(min_value=5, min_user_items=11)
    assert papers["echonest"].rules == Rules(
        min_value=5, repeats="sum", min_user_items=21, min_item_users=5
    )


@pytest.mark.data
@real
def test_the_fragment_of_book_crossing(scratch):
    raw = book_crossing.read(SHARED / "raw-book-crossing-fragment.csv.gz", scratch)
    with gzip.open(SHARED / "raw-book-crossing-fragment.csv.gz", "rt", encoding="latin-1") as file:
        reader = csv.reader(file, delimiter=";", doublequote=False, escapechar="\\", strict=True)
        expected = [(user, isbn, int(rating)) for user, isbn, rating in reader]
    assert raw.rows.collect().rows() == expected
    assert raw.rejected.is_empty()
    assert len(expected) == 39_268
    assert len({user for user, _, _ in expected}) == 4_287
    assert len({isbn for _, isbn, _ in expected}) == 29_248
    assert sum(rating == 0 for _, _, rating in expected) == 24_157
    assert expected[12_803] == ("48821", '"8804501367"', 0)
    assert expected[38_356] == ("54828", "393ß704064", 10)


@pytest.mark.data
@real
def test_the_fragment_of_echonest(scratch):
    path = SHARED / "raw-echonest-fragment.txt.gz"
    rows = echonest.read(path, scratch).rows.collect()
    with gzip.open(path, "rt") as file:
        expected = [line.rstrip("\n").split("\t") for line in file]
    assert [[user, item, str(plays)] for user, item, plays in rows.rows()] == expected
    assert rows.height == 20_000
    assert (rows["user"].n_unique(), rows["item"].n_unique()) == (756, 7_279)
    assert rows["value"].sum() == 58_239
    most = Counter()
    listeners = defaultdict(set)
    for user, item, plays in expected:
        most[item] += int(plays)
        listeners[item].add(user)
    top, plays = most.most_common(1)[0]
    chosen = rows.filter(item=top)
    assert (chosen["value"].sum(), chosen["user"].n_unique()) == (plays, len(listeners[top]))

"""Targets: MovieLens in four forms, with its films."""

import csv

from fuzzing.cases import InvalidError
from fuzzing.lastfm import strict_named
from fuzzing.oracles import PARTS, text_table
from fuzzing.recipes import MalformedLineError, Read, described, needs, ratings, spoilt_text, strict

FLAGS = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]  # fmt: skip
FILMS = [("1", "Toy Story (1995)", ["Animation", "Comedy"]), ("2", "Été (1996)", ["Drama"]),
         ("3", "X: Y", []), ("4", 'The "A", B', ["War"])]  # fmt: skip


def write_100k(rng, spoil):
    about = ["|".join([i, t, "", "", "", *(str(int(f in g)) for f in FLAGS)]) for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "u.data": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "\t"), "utf-8"),
        "u.item": spoil.encoded(spoil.joined(about), rng.choice(["latin-1", "utf-8"])),
    }


def write_1m(rng, spoil):
    about = [f"{i}::{t}::{'|'.join(g)}" for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "ratings.dat": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "::"), "utf-8"),
        "movies.dat": spoil.encoded(spoil.joined(about), rng.choice(["latin-1", "utf-8"])),
    }


def write_25m(rng, spoil):
    header = "userId,movieId,rating,timestamp"
    about = ["movieId,title,genres"]
    for item, title, genres in FILMS:
        title = '"' + title.replace('"', '""') + '"' if set(title) & set('",') else title
        about.append(f"{item},{title},{'|'.join(genres) or '(no genres listed)'}")
    spoil.lines(about)
    return {
        "ratings.csv": spoil.encoded(
            spoilt_text(spoil, ratings(rng), "iinn", ",", header), "utf-8"
        ),
        "movies.csv": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def write_recbole(rng, spoil):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    about = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    about += [f"{i}\t{t}\t1995\t{' '.join(g)}" for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "a.inter": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "\t", header), "utf-8"),
        "a.item": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def film(item, title, genres):
    needs(item)
    return item, title, " | ".join(g for g in genres if g and g != "(no genres listed)") or None


def item_film(text):
    fields = text.split("|")
    needs(len(fields) >= 5)
    return film(
        fields[0], fields[1], [f for f, on in zip(FLAGS, fields[5:], strict=False) if on == "1"]
    )


def dat_film(text):
    fields = text.split("::")
    needs(len(fields) == 3)
    return film(*fields[:2], fields[2].split("|"))


def csv_film(text):
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error:
        raise MalformedLineError from None
    needs(len(fields) == 3)
    return film(*fields[:2], fields[2].split("|"))


def recbole_film(text):
    fields = text.split("\t")
    needs(len(fields) == 4)
    item, title, year, genres = fields
    dated = "unknown" if year == "unkonwn" else f"{title} ({year})"
    return film(item, dated, [genres] if genres == "(no genres listed)" else genres.split(" "))


def latin_or_not(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def with_films(data, rows, parse, *, old=False, **how):
    if data is None:
        return Read(rows)
    encoding = latin_or_not(data) if old else "utf-8"
    return Read(rows, *described(data, parse, encoding=encoding, **how))


def read_100k(take, main):
    table = text_table(take(main), "\t", has_header=False, quotes=False)
    if len(table.columns) != 4:
        raise InvalidError("not 4 fields")
    rows = strict(table, {part: at for at, part in enumerate(PARTS)})
    return with_films(take("u.item"), rows, item_film, old=True)


def read_1m(take, main):
    table = text_table(take(main), ":", has_header=False, quotes=False)
    if len(table.columns) != 7:
        raise InvalidError("not 4 fields")
    for row, line in zip(table.rows, table.lines, strict=True):
        if row[1::2] != (None,) * 3:
            raise InvalidError("a single :", line)
    rows = strict(table, {part: 2 * at for at, part in enumerate(PARTS)})
    return with_films(take("movies.dat"), rows, dat_film, old=True)


def read_25m(take, main):
    names = ("userId", "movieId", "rating", "timestamp")
    rows = strict_named(text_table(take(main)), dict(zip(PARTS, names, strict=True)))
    return with_films(take("movies.csv"), rows, csv_film, header="movieid,")


def read_recbole(take, main):
    names = ("user_id", "item_id", "rating", "timestamp")
    table = text_table(take(main), "\t", quotes=False)
    rows = strict_named(table, dict(zip(PARTS, names, strict=True)))
    return with_films(take("a.item"), rows, recbole_film, header="item_id:")

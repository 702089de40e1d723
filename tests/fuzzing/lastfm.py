"""Target: Last.fm, with its artists."""

from fuzzing.cases import InvalidError
from fuzzing.oracles import text_table
from fuzzing.recipes import Read, described, needs, ratings, spoilt_text, strict


def write_lastfm(rng, spoil):
    rows = [row[:3] for row in ratings(rng, whole_values=True)]
    header = "userID\tartistID\tweight"
    about = ["id\tname\turl\tpictureURL", *(f"{n}\té {n}\thttp://{n}\t" for n in "1234")]
    spoil.lines(about)
    return {
        "user_artists.dat": spoil.encoded(spoilt_text(spoil, rows, "iin", "\t", header), "utf-8"),
        "artists.dat": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def artist(text):
    fields = text.split("\t")
    needs(len(fields) == 4 and fields[0])
    return tuple(fields[:3])


def read_lastfm(take, main):
    table = text_table(take(main), "\t", quotes=False)
    columns = {"user": "userID", "item": "artistID", "value": "weight"}
    rows = strict_named(table, columns, counts=True)
    if take("artists.dat") is None:
        return Read(rows)
    return Read(rows, *described(take("artists.dat"), artist, header="id\t"))


def strict_named(table, columns, **how):
    """As `strict`; names count up to a ":"."""
    short = {}
    for at, name in enumerate(table.columns):
        short[name.split(":")[0]] = at
    for name in columns.values():
        if name not in short:
            raise InvalidError(f"no column {name!r}")
    return strict(table, {part: short[name] for part, name in columns.items()}, **how)

"""The loop: make a case, read it with nearfar, and compare."""

import random
import re
import shutil
from collections import Counter
from functools import partial
from unittest.mock import patch

from fuzzing.amazon import read_amazon_csv, read_reviews, write_amazon_csv, write_reviews
from fuzzing.books import read_books, write_books
from fuzzing.cases import FindingError, InvalidError, Right, Target
from fuzzing.columnar import expect_columnar, make_columnar
from fuzzing.echonest import read_plays, write_plays
from fuzzing.folders import expect_folder, make_folder, observe_folder
from fuzzing.lastfm import read_lastfm, write_lastfm
from fuzzing.movielens import (
    read_1m,
    read_25m,
    read_100k,
    read_recbole,
    write_1m,
    write_25m,
    write_100k,
    write_recbole,
)
from fuzzing.recipes import expect_recipe, make_recipe, observe_recipe
from fuzzing.tables import (
    expect_table,
    json_of,
    line_in,
    make_json,
    make_text,
    observe_table,
    text_of,
)
from nearfar.errors import NearfarError
from nearfar.readers import spool
from nearfar.readers import text as text_reader

TARGETS = {
    "text": Target(make_text, partial(expect_table, parse=text_of), observe_table),
    "json": Target(make_json, partial(expect_table, parse=json_of), observe_table),
    "parquet": Target(
        partial(make_columnar, target="parquet"), expect_columnar, observe_table, False
    ),
    "arrow": Target(partial(make_columnar, target="arrow"), expect_columnar, observe_table, False),
    "folder": Target(make_folder, expect_folder, observe_folder, False),
}
for _name, _recipe, _write, _read in (
    ("reviews", "amazon", write_reviews, read_reviews),
    ("amazon-csv", "amazon", write_amazon_csv, read_amazon_csv),
    ("books", "book-crossing", write_books, read_books),
    ("plays", "echonest", write_plays, read_plays),
    ("lastfm", "lastfm", write_lastfm, read_lastfm),
    ("100k", "movielens", write_100k, read_100k),
    ("1m", "movielens", write_1m, read_1m),
    ("25m", "movielens", write_25m, read_25m),
    ("recbole", "movielens", write_recbole, read_recbole),
):
    TARGETS[_name] = Target(
        partial(make_recipe, target=_name, recipe=_recipe, write=_write),
        partial(expect_recipe, read=_read),
        observe_recipe,
    )

REMEDY = re.compile(
    r"\b(check|choose|close|convert|copy|correct|double|drop|free|get|loosen|give|make|name|put|read|"
    r"remove|rename|restore|save|say|switch|swap|unpack|upgrade|wait|write|pass|use)\b", re.I
)  # fmt: skip


def case(target, seed):
    """Make a case: the same one for the same name and number."""
    return TARGETS[target].make(seed, random.Random(f"{target} {seed}"))


def examine(one, folder):
    """Read a case and judge what came of it: "read", "refused" or "altered" (`Right.n_rows`).

    Raises
    ------
    FindingError
        If it is not what the oracle says.
    """
    target = TARGETS[one.target]
    place, scratch = folder / "case", folder / "scratch"
    for made in (place, scratch):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    for name, data in one.files.items():
        (place / name).write_bytes(data)
    try:
        right = target.expect(one)
    except InvalidError as invalid:
        right = invalid
    chunk, batch = (text_reader.CHUNK, spool.BATCH) if one.seed % 3 else (11 + one.seed % 50, 2)
    try:
        with patch.object(text_reader, "CHUNK", chunk), patch.object(spool, "BATCH", batch):
            found = target.observe(one, place / one.given, scratch)
    except NearfarError as error:
        fault = wrong_refusal(one, target, right, str(error))
        if fault:
            raise FindingError(f"{fault}: {error}\n{one}") from error
        return "refused"
    except AssertionError as error:
        raise FindingError(f"counts do not agree: {error}\n{one}") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of polars is no Exception
        raise FindingError(f"{type(error).__name__} came through: {error}\n{one}") from error
    if isinstance(right, InvalidError):
        raise FindingError(f"what cannot be read was read ({right}): {str(found)[:500]}\n{one}")
    if repr(found) not in map(repr, right.contents):
        if right.n_rows is not None and right.n_rows == rows_in(found):
            return "altered"
        raise FindingError(f"read\n{found}\nbut it is\n{right.contents}\n{one}"[:8000])
    return "read"


def rows_in(found):
    """Count the rows of what `observe_table` gives."""
    return found[1] if isinstance(found[1], int) else len(found[1])


def wrong_refusal(one, target, right, message):
    """Say what is wrong with an error of nearfar, if something is."""
    if isinstance(right, Right) and not right.refusable:
        return "what can be read was refused"
    names = [*one.files, *(["all.zip"] if one.given == "all.zip" else []), "case"]
    of_rules = right.of_rules if isinstance(right, InvalidError) else right.refusable
    of_rules |= bool(one.changes) and not target.line_by_line
    of_rules = of_rules and message.startswith(("Nothing is left", "There is no interaction"))
    if not of_rules and not any(name in message for name in names):
        return "the file is not named"
    lines = right.lines if target.line_by_line and isinstance(right, InvalidError) else set()
    if lines and line_in(message) not in lines:
        return f"the line must be one of {sorted(lines)} ({right})"
    # those that lack a column list the others
    remedy = REMEDY.search(re.sub(r"'[^']*'", "", message)) or "columns are " in message
    if not (of_rules or remedy or re.search(r"has '.*'; there are ", message)):
        return "there is no remedy"
    return None


def run(target, seeds, folder):
    """Examine many cases; gives how many were read and refused."""
    return Counter(examine(case(target, seed), folder) for seed in seeds)

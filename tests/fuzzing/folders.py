"""Target: saved folders of interactions."""

import random
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from fuzzing.cases import Case, Right
from fuzzing.spoil import Spoiler
from nearfar import Interactions


@cache
def saved(which):
    """Save interactions and give the files and their content."""
    ids = [str, int, lambda n: f"näme {n}"][which % 3]
    rng = random.Random(which)
    pairs = [(ids(rng.randrange(9)), ids(rng.randrange(9)), n) for n in range(30)]
    data = Interactions.from_pairs(pairs if which % 2 else [pair[:2] for pair in pairs])
    if which % 3 < 2:
        titles = [f"title {row}" for row in range(data.n_items)]
        data = data.with_item_table(
            pl.DataFrame({"item_id": data.item_ids.values, "title": titles})
        )
    with TemporaryDirectory() as folder:
        more = {"rejected": pl.DataFrame({"line": [1]})}
        data.save(f"{folder}/data", made={"source": "x.csv"}, more=more)
        listed = sorted(Path(folder, "data").iterdir())
        files = {file.name: file.read_bytes() for file in listed}
    return files, folder_content(data)


def folder_content(data):
    table = data.item_table
    return (
        data.fingerprint,
        None if table is None else repr(table.rows()),
        data.titles(data.item_ids),
    )


def make_folder(seed, rng):
    spoil = Spoiler(rng)
    files, content = saved(rng.randrange(6))
    files = dict(files)
    name = rng.choice([*files, "nearfar.json", "nearfar.json"])
    what = rng.randrange(12)
    if what == 0:
        del files[name]
        spoil.note(f"without {name}")
    elif what == 1:
        files[name] = files[rng.choice(list(files))]
        spoil.note(f"another content of {name}")
    elif what == 2:
        text = files["nearfar.json"].decode()
        word = rng.choice(re.findall(r"\w+", text))
        files["nearfar.json"] = text.replace(
            word, rng.choice(["x", "1", "null", "true"]), 1
        ).encode()
        spoil.note(f"{word} replaced")
    elif what < 11:
        files[name] = spoil.bytes(files[name], 0.6)
        spoil.note(f"in {name}")
    return Case("folder", seed, files, "", changes=tuple(spoil.changes), original=content)


def expect_folder(case):
    return Right([case.original], refusable=bool(case.changes))


def observe_folder(case, path, scratch):
    return folder_content(Interactions.load(path))

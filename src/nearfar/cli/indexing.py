"""``nearfar index``: an approximate index of a model's items."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import show
from nearfar.cli.fitting import Json
from nearfar.cli.using import Length, Model, Threads
from nearfar.model.cml import CML
from nearfar.runtime import store
from nearfar.search.item_index import KIND, ItemIndex


def index(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="INDEX", help="Folder to write.")],
    recall: Annotated[
        float, typer.Option(help="Share of the k best items that it shall find; 1 is exact search.")
    ] = 0.95,
    k: Length = 10,
    seed: Annotated[int, typer.Option(help="Names every random number.")] = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make an index, which `recommend` and `similar` look for items with: faster, and misses some.

    How many of its lists a query looks through is chosen so that RECALL is reached on users of the
    model; what is printed is the recall measured on others.
    """
    store.check_replaceable(out, kind=KIND)
    fitted = CML.load(model)
    begun = time.perf_counter()
    made = ItemIndex.build(fitted, recall, k, seed=seed, threads=threads)
    seconds = time.perf_counter() - begun
    made.save(out)
    of = made.figures
    if json:
        show.emit({"index": str(out), "n_items": made.n_items, **asdict(of), "seconds": seconds})
        return
    how = "all, so the search is exact" if made.exact else f"{of.n_probed:,} of them"
    show.say(f"{made.n_items:,} items in {of.n_lists:,} lists; a query looks through {how}.")
    show.say(
        f"Recall at {of.k}: {of.recall:.4f}, measured on {of.n_users:,} users ({recall} was asked"
        f" for). Written to {out} after {seconds:.1f} s."
    )

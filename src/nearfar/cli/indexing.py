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
        float, typer.Option(help="Target share of the k best items found; 1 is exact search.")
    ] = 0.95,
    k: Length = 10,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Build an approximate index for `recommend` and `similar`: faster, but misses some items.

    The number of lists searched per query is chosen so that RECALL is reached on a sample of users;
    the printed recall is measured on other users.
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
    dial = f" at popularity {of.popularity:g}" if fitted.gamma else ""
    show.say(f"{made.n_items:,} items in {of.n_lists:,} lists; a query searches {how}.")
    show.say(
        f"Recall at {of.k}{dial}: {of.recall:.4f}, measured on {of.n_users:,} users (target:"
        f" {recall}). Written to {out} after {seconds:.1f} s."
    )

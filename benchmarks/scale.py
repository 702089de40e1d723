"""From raw rows to saved interactions at 100 million rows: seconds and memory, beside two peers.

The rows are made up: users and items with power-law popularities (rank^-0.5 and rank^-0.8, ranks in
random order), values 1 to 5, times; ids int64 or text, Parquet in parts, kept between runs. What is
done: value >= 3; each pair once, with its earliest time; users with at least 5 items and items with
at least 5 users, to the fixed point; ids to rows in the order of the sorted ids; pairs sorted by
row, users and items written as Parquet.

nearfar is `prepare` and `save`. The peers were given their quickest formulation of several. Both
keep counts up to date by the pairs of those just removed, instead of counting or copying all pairs
again in every round; polars turns ids to numbers first and sorts the pairs once, DuckDB groups the
pairs by the ids as they are. DuckDB runs with its default memory limit, and once more with 2.5 GB.

    python benchmarks/scale.py [--ids int64 text] [--rows 100000000] [--folder FOLDER]

writes results/scale.csv; 100 million rows take about 2.6 GB of disk for both kinds of ids, and
DuckDB's overflow some more. Every run is a process of its own that loads only what it uses; its
seconds begin after the imports, its memory is the peak of the whole process. The files are read
into the page cache before each. All outputs must be the same, down to the checksum of the decoded
pairs, first on few rows and then in every timed run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

# `common` loads nearfar; only `main` does that, so that it is not in the memory of the peers.

MIN_VALUE, LEAST = 3, 5
FEW_ROWS = 200_000
PART = 2**22
"""Rows of a file."""
FOLDER = Path(tempfile.gettempdir(), "nearfar-scale")


class Source(NamedTuple):
    """Made-up rows in a folder, in files of `PART` rows."""

    folder: str
    n_rows: int
    n_users: int
    n_items: int
    ids: str

    @property
    def path(self) -> Path:
        """The folder with the files, which has this name when it is complete."""
        return Path(self.folder, "-".join(map(str, self[1:])))

    def make(self) -> None:
        """Write the files, unless they are there."""
        if self.path.is_dir():
            return
        print(f"making {self.path}", flush=True)
        unfinished = self.path.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        rng = np.random.default_rng(0)
        users, items = rng.permutation(self.n_users), rng.permutation(self.n_items)
        for begin in range(0, self.n_rows, PART):
            n = min(PART, self.n_rows - begin)
            columns = {  # a power of a uniform number is a rank, as in `common.made_up_pairs`
                "user": users[(self.n_users * rng.random(n) ** 2).astype(np.int64)],
                "item": items[(self.n_items * rng.random(n) ** 5).astype(np.int64)],
                "value": rng.integers(1, 6, n, dtype=np.int8),
                "time": 1_400_000_000 + rng.integers(0, 10**8, n),
            }
            part = pl.DataFrame(columns)
            if self.ids == "text":
                text = {"user": pl.format("U{}", "user"), "item": pl.format("I{}", "item")}
                part = part.with_columns(**text)
            part.write_parquet(unfinished / f"{begin // PART:04}.parquet")
        unfinished.rename(self.path)

    def cache(self) -> None:
        """Read the files once, so that nobody waits for the disk."""
        for file in self.path.iterdir():
            with file.open("rb") as opened:
                while opened.read(2**24):
                    pass


# ---------------------------------------------------------------------------- contestants


def by_nearfar(files: str, output: Path, case: dict[str, Any]) -> Callable[[], None]:
    """Prepare and save, as a user of the library does."""
    import nearfar as nf

    least = {"min_user_items": LEAST, "min_item_users": LEAST}
    rules = nf.Rules(min_value=MIN_VALUE, **least, core="fixed-point")

    def run() -> None:
        data, _ = nf.prepare(pl.scan_parquet(files), rules)
        data.save(output)

    return run


def by_polars(files: str, output: Path, case: dict[str, Any]) -> Callable[[], None]:
    """Streaming queries; the pairs are sorted once and stay so to the end."""

    def run() -> None:
        output.mkdir()
        rows = pl.scan_parquet(files).filter(pl.col("value") >= MIN_VALUE)
        codes = {side: _polars_codes(rows, side) for side in ("user", "item")}
        numbered = rows.join(codes["user"].lazy(), on="user").join(codes["item"].lazy(), on="item")
        key = pl.col("user_row").cast(pl.Int64) * 2**32 + pl.col("item_row")
        by_key = numbered.select("time", key=key).sort("key").collect(engine="streaming").lazy()
        distinct = by_key.set_sorted("key").group_by("key", maintain_order=True)
        split = {"user": pl.col("key") // 2**32, "item": pl.col("key") % 2**32}
        pairs = (
            distinct.agg(pl.col("time").min())
            .select("time", **{side: part.cast(pl.Int32) for side, part in split.items()})
            .collect(engine="streaming")
        )
        del by_key, distinct
        renumbered = {}
        for side, left in _polars_core(pairs.lazy()).items():
            ids = codes[side].select(id=pl.col(side).gather(left))
            ids.write_parquet(output / f"{side}s.parquet")
            row = pl.Series([None], dtype=pl.Int32).new_from_index(0, codes[side].height)
            row = row.scatter(left, np.arange(len(left), dtype=np.int32))
            renumbered[side] = pl.lit(row).gather(pl.col(side))
        result = pairs.lazy().select(**renumbered, time="time").drop_nulls()
        result.sink_parquet(output / "pairs.parquet")

    return run


def _polars_codes(rows: pl.LazyFrame, side: str) -> pl.DataFrame:
    """Give the distinct ids a number each, in their order."""
    distinct = rows.select(side).unique().sort(side)
    return distinct.with_row_index(f"{side}_row").collect(engine="streaming")


def _polars_core(pairs: pl.LazyFrame) -> dict[str, pl.Series]:
    """Give the rows of the core, sorted; what is removed is taken off the other side's counts."""
    counts = {
        side: pairs.group_by(side).agg(n=pl.len().cast(pl.Int64)).collect(engine="streaming")
        for side in ("user", "item")
    }
    side, other, idle = "user", "item", 0
    while idle < 2:
        enough = pl.col("n") >= LEAST
        gone, counts[side] = counts[side].filter(~enough), counts[side].filter(enough)
        idle = 0 if gone.height else idle + 1
        if gone.height:
            lost = pairs.join(gone.lazy(), on=side, how="semi").group_by(other).agg(lost=pl.len())
            left = pl.col("n") - pl.col("lost").cast(pl.Int64).fill_null(0)
            joined = counts[other].lazy().join(lost, on=other, how="left").select(other, n=left)
            counts[other] = joined.collect(engine="streaming")
        side, other = other, side
    return {side: counts[side][side].sort() for side in counts}


def by_duckdb(files: str, output: Path, case: dict[str, Any]) -> Callable[[], None]:
    """Temporary tables that overflow to the disk; ids become numbers at the end."""
    import duckdb

    def run() -> None:
        output.mkdir()
        database = duckdb.connect()
        database.execute(f"SET threads = {case['threads']}")
        database.execute(f"SET temp_directory = '{output / 'overflow'}'")
        if case["name"] == LIMITED:
            database.execute(f"SET memory_limit = '{LIMIT}'")
        database.execute(DUCKDB_PAIRS.format(files=files))
        side, other, idle = "user", "item", 0
        while idle < 2:  # as `_polars_core`
            few = f"SELECT count(*) FROM core_{side} WHERE n < {LEAST}"
            idle = 0 if database.execute(few).fetchone()[0] else idle + 1
            if not idle:
                database.execute(DUCKDB_REMOVE.format(side=side, other=other))
            side, other = other, side
        database.execute(DUCKDB_WRITE.format(output=output))

    return run


DUCKDB_PAIRS = f"""
    CREATE TEMP VIEW kept AS
        SELECT user, item, time FROM read_parquet('{{files}}') WHERE value >= {MIN_VALUE};
    SET preserve_insertion_order = false;
    CREATE TEMP TABLE pairs AS SELECT user, item, min(time) AS time FROM kept GROUP BY ALL;
    CREATE TEMP TABLE core_user AS SELECT user AS k, count(*) AS n FROM pairs GROUP BY k;
    CREATE TEMP TABLE core_item AS SELECT item AS k, count(*) AS n FROM pairs GROUP BY k;
"""
DUCKDB_REMOVE = f"""
    CREATE OR REPLACE TEMP TABLE gone AS SELECT k FROM core_{{side}} WHERE n < {LEAST};
    DELETE FROM core_{{side}} WHERE n < {LEAST};
    CREATE OR REPLACE TEMP TABLE core_{{other}} AS
        SELECT k, n - coalesce(lost, 0) AS n FROM core_{{other}} LEFT JOIN (
            SELECT {{other}} AS k, count(*) AS lost FROM pairs
            WHERE {{side}} IN (FROM gone) GROUP BY k
        ) USING (k);
"""
DUCKDB_WRITE = """
    CREATE TEMP TABLE new_user AS
        SELECT k, (row_number() OVER (ORDER BY k) - 1)::INT AS row FROM core_user;
    CREATE TEMP TABLE new_item AS
        SELECT k, (row_number() OVER (ORDER BY k) - 1)::INT AS row FROM core_item;
    COPY (SELECT k AS id FROM new_user ORDER BY row)
        TO '{output}/users.parquet' (FORMAT parquet, COMPRESSION zstd);
    COPY (SELECT k AS id FROM new_item ORDER BY row)
        TO '{output}/items.parquet' (FORMAT parquet, COMPRESSION zstd);
    COPY (
        SELECT u.row AS user, i.row AS item, time
        FROM pairs JOIN new_user u ON user = u.k JOIN new_item i ON item = i.k
        ORDER BY u.row, i.row
    ) TO '{output}/pairs.parquet' (FORMAT parquet, COMPRESSION zstd);
"""


# ---------------------------------------------------------------------- in a process of its own


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run a contestant in this process; give its seconds and the peak of the memory in MiB."""
    run = CONTESTANTS[case["name"]](case["files"], Path(case["output"]), case)
    begun = time.perf_counter()
    try:
        run()
    except Exception as error:  # DuckDB's class of errors is not there to name where it is absent
        if type(error).__name__ != "OutOfMemoryException":
            raise
        return {"failed": "out of memory"}
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak": peak}


def examine(case: dict[str, Any]) -> dict[str, Any]:
    """Check an output by itself; give its size and a checksum of the decoded pairs."""
    output, name = Path(case["output"]), case["name"]
    if name == "nearfar":
        import nearfar as nf

        data = nf.Interactions.load(output)
        pairs = [data.pair_users(), data.items, np.asarray(data.times)]
        ids = [data.user_ids.values, data.item_ids.values]
    else:
        frame = pl.read_parquet(output / "pairs.parquet")
        pairs = [frame[column].to_numpy() for column in ("user", "item", "time")]
        ids = [pl.read_parquet(output / f"{side}.parquet")["id"] for side in ("users", "items")]
    pair_keys = pl.Series(pairs[0].astype(np.int64) << 32 | pairs[1])
    for ordered in (pair_keys, *ids):
        if not (ordered.slice(1) > ordered.head(len(ordered) - 1)).all():
            raise SystemExit(f"{name}: pairs or ids are not in order, each once.")
    for rows, names in zip(pairs[:2], ids, strict=True):
        if np.bincount(rows, minlength=len(names)).min() < LEAST:
            raise SystemExit(f"{name}: a user or an item was left with fewer than {LEAST}.")
    sizes = {"pairs": len(pair_keys), "users": len(ids[0]), "items": len(ids[1])}
    return {**sizes, "checksum": checksum(pairs, ids)}


def checksum(pairs: Sequence[npt.NDArray[Any]], ids: Sequence[pl.Series]) -> int:
    """Add a hash of (user id, item id, time) over the pairs; their order does not matter."""
    user_hashes, item_hashes = (part.hash(seed).to_numpy() for seed, part in enumerate(ids))
    total = 0
    for begin in range(0, len(pairs[0]), PART):
        users, items, times = (part[begin : begin + PART] for part in pairs)
        mixed = user_hashes[users] * np.uint64(3) ^ item_hashes[items]
        mixed += times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        total += int((mixed ^ mixed >> np.uint64(27)).sum(dtype=np.uint64))
    return total % 2**64


# ------------------------------------------------------------------------------------------- all


LIMITED, LIMIT = "DuckDB, 2.5 GB", "2.5GB"
CONTESTANTS: dict[str, Callable[[str, Path, dict[str, Any]], Callable[[], None]]] = {
    "nearfar": by_nearfar,
    "polars streaming": by_polars,
    "DuckDB": by_duckdb,
    LIMITED: by_duckdb,
}


def compete(source: Source, names: Sequence[str], threads: int) -> dict[str, dict[str, Any]]:
    """Run each once, in turn; stop unless all that got through have the same result."""
    from common import in_own_process

    outcomes: dict[str, dict[str, Any]] = {}
    for name in names:
        source.cache()
        with tempfile.TemporaryDirectory(dir=source.folder) as scratch:
            case = {"name": name, "threads": threads, "files": str(source.path / "*.parquet"),
                    "output": str(Path(scratch, "output"))}  # fmt: skip
            environment = {"POLARS_MAX_THREADS": str(threads)}
            outcome = in_own_process(__file__, {**case, "task": "measure"}, environment)
            if "failed" not in outcome:
                outcome["result"] = in_own_process(__file__, {**case, "task": "examine"})
        outcomes[name] = outcome
        print(f"{source.n_rows:,} rows, {name}: {outcome}", flush=True)
    results = [outcome["result"] for outcome in outcomes.values() if "result" in outcome]
    if any(result != results[0] for result in results):
        raise SystemExit("The outputs differ; the figures are worth nothing.")
    return outcomes


def line_of(name: str, source: Source, rounds: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Summarise the rounds of a contestant; one that did not run has a line that says why."""
    from common import Spread, ratios

    outcomes = [outcomes[name] for outcomes in rounds if name in outcomes]
    failed = [outcome["failed"] for outcome in outcomes if "failed" in outcome]
    line: dict[str, object] = {"contestant": name, "ids": source.ids, "rows": source.n_rows}
    if failed or not outcomes:
        blank = dict.fromkeys(("seconds", "nearfar / theirs", "peak_mib", "pairs"))
        return line | blank | {"note": failed[0] if failed else "not installed"}
    seconds = [outcome["seconds"] for outcome in outcomes]
    line |= Spread.of(seconds).columns("seconds", 1) | {"nearfar / theirs": None}
    if all("nearfar" in outcomes for outcomes in rounds):
        own = [outcomes["nearfar"]["seconds"] for outcomes in rounds]
        line |= ratios(own, seconds).columns("nearfar / theirs", 2)
    line |= Spread.of([outcome["peak"] for outcome in outcomes]).columns("peak_mib", 0)
    return line | {"pairs": outcomes[0]["result"]["pairs"], "note": None}


def main() -> None:
    """Make the rows, let all run on few of them, then on all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, help="of which ids are drawn; rows / 20")
    parser.add_argument("--items", type=int, help="of which ids are drawn; rows / 100")
    parser.add_argument("--ids", nargs="+", choices=("int64", "text"), default=["int64"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rounds", type=int, default=3)
    names = [*CONTESTANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        task = {"measure": measure, "examine": examine}[args.case["task"]]
        print(json.dumps(task(args.case)))
        return
    from common import show, write

    has_duckdb = importlib.util.find_spec("duckdb") is not None
    runs = [name for name in args.only if has_duckdb or CONTESTANTS[name] is not by_duckdb]
    lines = []
    for ids in args.ids:
        few = Source(str(args.folder), FEW_ROWS, FEW_ROWS // 20, FEW_ROWS // 100, ids)
        n_users, n_items = args.users or args.rows // 20, args.items or args.rows // 100
        many = Source(str(args.folder), args.rows, n_users, n_items, ids)
        for source in (few, many):
            source.make()
        compete(few, runs, args.threads)
        rounds = [compete(many, runs, args.threads) for _ in range(args.rounds)]
        lines += [line_of(name, many, rounds) for name in args.only]
    show("From raw rows to saved interactions", lines)
    write("scale", lines)


if __name__ == "__main__":
    main()

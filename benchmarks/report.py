"""Put the tables in results/ into the pages, so that no figure there is typed by hand.

Between ``<!-- table NAME -->`` and ``<!-- end -->`` stands NAME.csv of results/ here or of
research/results/, with the columns below
and ranges behind their medians.

    python benchmarks/report.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = (HERE / "results", HERE.parent / "research" / "results")
PAGES = (HERE / "README.md", DOCS / "negatives.md", DOCS / "guides" / "popularity.md",
         DOCS / "guides" / "content.md", DOCS / "guides" / "encoders.md",
         DOCS / "guides" / "stores.md",
         DOCS / "results" / "gpu.md", DOCS / "results" / "leaderboards.md")  # fmt: skip
LEADERBOARD = {
    "method": "method", "recall": "Recall@20 %", "ndcg": "NDCG@20 %", "mmr": "MMR",
    "coverage": "items shown %", "setting": "chosen", "runs": "of runs", "epochs": "epochs",
    "validation_ndcg": "NDCG@20 % on validation", "seconds": "seconds", "device": "on",
}  # fmt: skip
COLUMNS: dict[str, dict[str, str]] = {
    "step": {
        "sampler": "sampler", "batch": "batch", "negatives": "negatives", "threads": "threads",
        "step_ms": "step, ms", "groups_per_second": "triplet groups a second",
        "rows_ms": "its rows, ms", "product_ms": "product, ms", "ratio": "step / limit",
        "plain_ratio": "step / limit by a plain loop", "to_popularity": "x popularity",
    },
    "catalogue": {
        "sampler": "sampler", "n_items": "items", "rows": "rows a step", "table_mib": "tables, MiB",
        "step_ms": "step, ms",
        "to_smallest": "x smallest", "rows_ms": "its rows, ms", "to_rows": "step / rows",
        "step_more_ms": "step: more than smallest, ms", "rows_more_ms": "rows: more, ms",
    },
    "setup": {
        "pairs": "pairs", "users": "users", "items": "items", "from_rows_s": "sorting into CSR, s",
        "alias_table_s": "alias table, s", "total_s": "in all, s", "us_per_pair": "us a pair",
        "bytes_per_pair": "peak, bytes a pair",
    },
    "evaluation": {
        "case": "what", "threads": "threads", "us_per_user": "us a user",
        "all_users_s": "31,521 users, s", "to_same_tiles": "x product, same tiles",
        "to_best_tiles": "x product, best tiles", "growth_mib": "memory, MiB",
    },
    "defaults": {
        "data": "data", "most_popular": "most popular: NDCG@50", "goal": "former: NDCG@50",
        "former_epoch": "epoch", "former_s": "former: seconds", "ndcg": "now: NDCG@50",
        "epoch": "epoch", "seconds": "now: seconds", "ratio": "now / former",
    },
    "dial": {
        "data": "data", "users": "users", "items": "items", "threads": "threads",
        "front_s": "nine settings, s", "evaluate_s": "one evaluation, s",
        "x_evaluation": "ratio within a round", "x_medians": "ratio of the medians",
    },
    "memory": {
        "n_items": "items", "run": "run", "with_kernels_mib": "before, MiB",
        "needed_mib": "needed, MiB", "peak_mib": "peak beyond before, MiB",
        "ratio": "peak / needed",
    },
    "busy": {
        "batch": "batch", "beside": "the other core", "step_ms": "step, ms",
        "to_idle": "x idle", "others": "cores used by others",
    },
    "threads": {
        "call": "call", "threads": "threads=", "cores_used": "cores used",
        "most_busy_threads": "most busy threads", "obeyed": "obeyed",
    },
    "compilation": {
        "options": "options", "cache": "cache of kernels", "fit_s": "fit, s",
        "total_s": "fit, evaluate, recommend, s", "process_s": "whole process, s",
        "kernels": "kernels", "compilations": "compilations",
    },
    "newcomers": {
        "data": "data", "epochs": "epochs", "what": "what", "way": "way",
        "ndcg": "NDCG@50", "map": "MAP@50",
        "mmr": "MMR", "n": "new users or items, or pairs", "seconds": "seconds",
        "milliseconds": "ms each",
    },
    "serve": {
        "search": "search", "connections": "connections", "requests": "requests",
        "per_second": "requests a second", "p50_ms": "p50, ms", "p99_ms": "p99, ms",
        "errors": "errors", "server_ms": "server, ms on a core a request",
        "server_cores": "cores the server had", "client_cores": "cores the client had",
        "start_mib": "memory at the start, MiB", "middle_mib": "middle", "end_mib": "end",
    },
    "operations": {"what": "what", "ms": "ms"},
    "page": {"pixels": "pixels of the screen for each", "what": "what", "ms": "ms"},
    "scale": {
        "contestant": "", "ids": "ids", "rows": "rows", "pairs": "pairs left", "seconds": "seconds",
        "nearfar / theirs": "nearfar's seconds / theirs", "peak_mib": "peak memory, MiB",
        "note": "",
    },
    "peers_speed": {
        "data": "data", "peer": "library", "optimiser": "optimiser", "batch": "batch",
        "threads": "threads", "positives_per_second": "positives a second",
        "nearfar_adam_times_as_fast": "nearfar Adam, x as fast",
        "nearfar_sgd_times_as_fast": "nearfar SGD, x as fast", "note": "",
    },
    "peers_quality": {
        "peer": "library", "own_best": "its best NDCG@50", "share": "share of it",
        "seconds": "its seconds", "nearfar_seconds": "nearfar's seconds",
        "nearfar_times_as_fast": "nearfar, x as fast", "cap_seconds": "cap, s", "note": "",
    },
    "peers_grid": {
        "peer": "library", "setting": "setting", "best_ndcg": "best NDCG@50",
        "best_epoch": "in pass", "seconds": "seconds trained", "ended": "ended",
    },
    "temperature": {
        "data": "data", "items": "items", "factor": "T / rule's T", "temperature": "T",
        "validation_ndcg": "NDCG@50 on validation", "validation_mmr": "MMR", "epoch": "epoch",
    },
    "rules_best": {
        "data": "data", "rule": "rule", "number": "its number", "rate": "learning rate",
        "map": "MAP@50 %", "ndcg": "NDCG@50 %", "mmr": "MMR", "epoch": "epoch",
    },
    "gpu_machine": {
        "device": "GPU", "cores": "cores of the processor", "torch": "torch", "triton": "Triton",
        "cuda": "CUDA", "driver": "driver", "copy_gb_s": "copy, GB/s",
        "empty_kernel_us": "empty launch, us", "float32_tflops": "float32, TFLOP/s",
        "tf32_tflops": "TF32, TFLOP/s",
    },
    "gpu_step": {
        "table": "table", "sampler": "sampler", "batch": "batch", "negatives": "negatives",
        "engine": "engine", "threads": "threads", "steps_per_s": "steps a second",
        "us_per_step": "step, us", "times_gpu": "x GPU", "launches": "launches",
        "bytes": "bytes", "floor_us": "floor, us", "over_floor": "step / floor",
    },
    "gpu_quality": {
        "engine": "engine", "threads": "threads", "epoch": "epochs", "train_s": "training, s",
        "epoch_s": "an epoch, s", "evaluate_s": "evaluations, s", "ndcg": "NDCG@50",
        "map": "MAP@50",
    },
    "index": {
        "model": "model", "n_items": "items", "how": "how", "setting": "setting",
        "recall": "recall at 10", "build_s": "made in, s", "single_us": "one user, us",
        "single_faster": "x faster than exact", "batch_us": "of 2,048 users, us each",
        "batch_faster": "x faster than exact, 2,048 users",
    },
    "batch": {
        "users": "users", "n_items": "items", "parts": "parts", "seconds": "seconds, two threads",
        "written_mib": "written, MiB", "growth_mib": "peak beyond the loaded model, MiB",
    },
    "prior_test": {
        "data": "data", "beta": "beta", "popularity": "setting", "gamma": "gamma",
        "folds": "folds", "map": "MAP@50", "ndcg": "NDCG@50", "mmr": "MMR", "coverage": "coverage",
        "map_ratio": "x MAP", "ndcg_ratio": "x NDCG", "mmr_ratio": "x MMR", "epochs": "epochs",
        "cpu_seconds": "processor, s",
    },
    "future_chosen": {
        "data": "data", "part": "tested items", "beta": "beta", "gamma": "gamma, by validation",
        "recall": "HR@10", "ndcg": "NDCG@10", "mmr": "MMR", "best_gamma": "best gamma on the test",
        "best_ndcg": "NDCG@10 with it",
    },
    "within": {
        "data": "data", "variant": "prior", "folds": "folds", "gamma": "gamma", "epoch": "epoch",
        "map": "MAP", "ndcg": "NDCG", "mmr": "MMR", "recall": "recall", "map_ratio": "x MAP",
        "ndcg_ratio": "x NDCG", "ndcg_p": "p of NDCG", "mmr_ratio": "x MMR",
    },
    "content": {
        "task": "data", "among": "ranked", "k": "k", "method": "method", "seeds": "seeds",
        "recall": "recall@k", "ndcg": "NDCG@k", "ndcg_std": "its deviation", "epochs": "epochs",
        "gamma": "gamma", "cpu_seconds": "processor, s",
    },
    "spectrograms": {
        "sampler": "sampler", "negatives": "negatives", "batch": "batch", "seeds": "seeds",
        "ndcg_warm": "NDCG@20, warm", "ndcg_cold": "NDCG@20, cold", "mmr_warm": "MMR",
        "epochs": "epochs", "best_epoch": "best", "distinct": "items a step",
        "peak_mib": "peak, MiB", "measured": "",
    },
    "stores": {
        "store": "store", "rows": "items", "coordinates": "coordinates", "first_s": "first, s",
        "same_s": "again, s", "next_s": "next version, s", "query_ms": "a query, ms",
        "recall": "recall at 10", "same": "the same list", "exact": "the same list, exactly",
    },
    "leaderboard_gowalla": LEADERBOARD,
    "leaderboard_amazon_cds": LEADERBOARD,
}  # fmt: skip


def file_of(name: str) -> Path | None:
    """Find the results of a table; None if they are not there."""
    files = [folder / f"{name}.csv" for folder in RESULTS]
    return next((file for file in files if file.is_file()), None)


def table_of(name: str, file: Path) -> str:
    """Write a table of results in Markdown."""
    frame = pl.read_csv(file, infer_schema_length=None)
    columns = {key: title for key, title in COLUMNS[name].items() if key in frame.columns}
    if "note" in columns and frame["note"].is_null().all():
        del columns["note"]
    lines = [f"| {' | '.join(columns.values())} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell(row, key) for key in columns)} |" for row in frame.to_dicts()]
    return "\n".join(lines)


def cell(row: dict[str, Any], name: str) -> str:
    """Write a figure, with its range if there is one."""
    value = row[name]
    if value is None or value != value:
        return ""
    low, high = row.get(f"{name}_min"), row.get(f"{name}_max")
    spread = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
    return number(value) + spread


def number(value: Any) -> str:
    """Write a number with separators and three significant places at least."""
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1000:
        value = int(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", "/")


def with_tables(text: str) -> str:
    """Replace every marked table whose results are there."""

    def replaced(match: re.Match[str]) -> str:
        if (file := file_of(match[1])) is None:
            return match[0]
        return f"<!-- table {match[1]} -->\n{table_of(match[1], file)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replaced, text, flags=re.S)


def main() -> None:
    """Bring the pages up to date."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()

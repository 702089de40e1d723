"""What the first use costs: compiling the kernels, and loading them in the next process.

Fit with validation, evaluate and recommend on little data, with the default options and with
2-stage sampling, each in a fresh process whose NUMBA_CACHE_DIR is empty, then in a second process
that finds the cache of the first. `process_s` is the whole process, interpreter and imports too.

    python benchmarks/compilation.py

writes results/compilation.csv and, for each case, what the first process compiled to
results/kernels.csv: a kernel is compiled once for each signature, and `own_s` is without the
kernels that it calls. It checks that both processes recommend the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import pairwise
from typing import Any

from numba.core import event

import nearfar as nf
from common import in_own_process, made_up, show, write

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "2-stage": {"sampler": nf.TwoStage(100)},
    "uniform, hinge": {"sampler": nf.Uniform(), "triplet": nf.Triplet()},
}


def first_use(name: str) -> dict[str, Any]:
    """Use the package in this process; give the seconds of each part, and what was compiled."""
    train, test = nf.split.ratio(made_up(500, 1000, 10_000), test=0.2, seed=0)
    model, times = nf.CML(**CASES[name]), [time.perf_counter()]
    with event.install_recorder("numba:compile") as recorder:
        model.fit(train, epochs=2, validation=0.1, threads=2, progress=False)
        times.append(time.perf_counter())
        nf.evaluate(model, train, test, threads=2)
        times.append(time.perf_counter())
        found = model.recommend_all(k=10, threads=2)
        times.append(time.perf_counter())
    fit, evaluate, recommend = (b - a for a, b in pairwise(times))
    return {
        "fit_s": fit,
        "evaluate_s": evaluate,
        "recommend_s": recommend,
        "recommended": found["item_id"].to_list(),
        "kernels": compiled(recorder.buffer),
    }


def compiled(events: list[tuple[float, event.Event]]) -> dict[str, list[float]]:
    """Give the seconds of each compilation by kernel, less those of the kernels inside it."""
    seconds: dict[str, list[float]] = {}
    open_since, inner = [], []
    for now, one in events:
        if one.is_start:
            open_since.append(now)
            inner.append(0.0)
            continue
        whole = now - open_since.pop()
        function = one.data["dispatcher"].py_func
        kernel = f"{function.__module__.removeprefix('nearfar.')}.{function.__name__}"
        seconds.setdefault(kernel, []).append(whole - inner.pop())
        if inner:
            inner[-1] += whole
    return seconds


def measure(name: str) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Use the package twice, with an empty cache and with the one this leaves."""
    lines, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            begun = time.perf_counter()
            found.append(in_own_process(__file__, {"name": name}, {"NUMBA_CACHE_DIR": folder}))
            whole = time.perf_counter() - begun
            lines.append({"options": name, "cache": cache, **summary(found[-1], whole)})
    if found[0]["recommended"] != found[1]["recommended"]:
        raise SystemExit(f"{name}: the second process recommends other items.")
    kernels = found[0]["kernels"]
    return lines, [
        {
            "options": name,
            "kernel": kernel,
            "signatures": len(seconds),
            "own_s": round(sum(seconds), 2),
        }
        for kernel, seconds in sorted(kernels.items(), key=lambda entry: -sum(entry[1]))
    ]


def summary(used: dict[str, Any], whole: float) -> dict[str, object]:
    """Make a line of the table."""
    parts = {name: round(used[name], 2) for name in ("fit_s", "evaluate_s", "recommend_s")}
    return {
        **parts,
        "total_s": round(sum(parts.values()), 2),
        "process_s": round(whole, 2),
        "kernels": len(used["kernels"]),
        "compilations": sum(len(seconds) for seconds in used["kernels"].values()),
    }


def main() -> None:
    """Measure both cases; or use the package once in a process made for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(first_use(**args.case)))
        return
    lines, kernels = [], []
    for name in CASES:
        of_case = measure(name)
        lines += of_case[0]
        kernels += of_case[1]
    show("First use", lines)
    shown = [line for line in kernels if line["kernel"][:6] != "numba." and line["signatures"] > 1]
    show("Kernels of nearfar that are compiled more than once", shown)
    write("compilation", lines)
    write("kernels", kernels)


if __name__ == "__main__":
    main()

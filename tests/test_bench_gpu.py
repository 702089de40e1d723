"""benchmarks/gpu.py: it runs to the end without a GPU, and its figures are of the right kind."""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nearfar as nf
from conftest import random_data
from nearfar.search.neighbours import Points

pytest.importorskip("torch")
ROOT = Path(__file__).parent.parent
STEP = (
    "table", "sampler", "batch", "negatives", "engine", "threads", "steps_per_s", "us_per_step",
    "times_gpu", "violated", "launches", "rows_read", "rows_written", "bytes", "flops", "floor_us",
    "least_floor_us", "over_floor", "first_s",
)  # fmt: skip
ABSENT = ("polars", "rich", "pandas", "pyarrow", "typer")
"""What an image with PyTorch need not have."""
RUN = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))
sys.path.insert(0, sys.argv[1])
del sys.argv[0]
runpy.run_path(sys.argv[0] + "/gpu.py", run_name="__main__")
"""


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def run(*arguments):
    """Run the script on one thread, without the packages that may be missing."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-c", RUN, ROOT / "benchmarks", *arguments],
        env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.splitlines()  # fmt: skip


def lines_of(file):
    with file.open() as text:
        return list(csv.DictReader(text))


def packed(module, folder):
    """Pack random data as the script does; give what was cut, and the file."""
    random_data(60, 90).save(folder / "data")
    module("gpu").pack(folder / "data", folder / "fold.npz")
    return *module("common").first_fold(folder / "data"), folder / "fold.npz"


@pytest.mark.slow
def test_everything_runs_at_a_small_size(module, tmp_path):
    file = packed(module, tmp_path)[-1]
    said = run("--small", "--gowalla", file, "--out", tmp_path / "out")
    assert all("no GPU: figures mean nothing" in line for line in said)
    tables = {f.stem: lines_of(f) for f in (tmp_path / "out").iterdir()}
    assert sorted(tables) == ["gpu_machine", "gpu_parity", "gpu_quality", "gpu_step"]
    assert {line["holds"] for line in tables["gpu_parity"]} == {"True"}
    for name in ("sampler", "optimiser", "loss", "geometry"):
        assert len({line[name] for line in tables["gpu_parity"]}) >= 3
    assert all(float(tables["gpu_machine"][0][n]) > 0 for n in ("copy_gb_s", "empty_kernel_us"))
    check_steps(tables["gpu_step"])
    quality = {(line["engine"], line["epoch"]): line for line in tables["gpu_quality"]}
    assert len(quality) == 4
    assert all(float(line["ndcg"]) > 0 < float(line["train_s"]) for line in quality.values())


def check_steps(lines):
    assert set(STEP) <= set(lines[0])
    rows = {(line["sampler"], line["batch"], line["negatives"]) for line in lines}
    assert len(rows) == 13
    engines = [line["engine"] for line in lines]
    assert len({line["table"] for line in lines}) == 2
    assert (engines.count("CPU"), engines.count("torch, SparseAdam")) == (26, 8)
    for line in lines:
        low, middle, high = (float(line[f"us_per_step{x}"]) for x in ("_min", "", "_max"))
        assert 0 < low <= middle <= high
        if line["engine"].startswith("torch on"):
            assert 0 < float(line["least_floor_us"]) < float(line["floor_us"]) < middle
            assert 0 < int(line["rows_written"]) <= int(line["rows_read"])
            assert (int(line["flops"]) > 0) == (line["sampler"] in {"TwoStage", "Shared"})


def test_no_results_are_written_without_a_gpu_unless_asked_for(module, tmp_path):
    gpu = module("gpu")
    assert gpu.folder_of(None, small=True) is None
    assert gpu.folder_of(tmp_path, small=True) == tmp_path
    assert gpu.folder_of(None, small=False) == gpu.RESULTS


def test_a_packed_fold_is_the_one_that_was_cut(module, tmp_path):
    learn, held_out, file = packed(module, tmp_path)
    fold = module("gpu_checks").Fold.load(file)
    for ours, theirs in ((fold.learn, learn), (fold.valid, held_out)):
        np.testing.assert_array_equal(ours.pair_users(), theirs.pair_users())
        np.testing.assert_array_equal(ours.items, theirs.items)
        np.testing.assert_array_equal(ours.user_counts, theirs.user_counts)
        np.testing.assert_array_equal(ours.item_counts, theirs.item_counts)
        assert (ours.n_users, ours.n_items) == (theirs.n_users, theirs.n_items)


def test_figures_are_those_of_evaluate(module, tmp_path):
    learn, held_out, file = packed(module, tmp_path)
    points = np.random.default_rng(0).standard_normal((learn.n_users + learn.n_items, 8))
    points = points.astype(np.float32)
    found = module("gpu_checks").Fold.load(file).figures(points, "torch:cpu")
    scorer = Points(points[: learn.n_users], points[learn.n_users :])
    expected = nf.evaluate(scorer, learn, held_out, k=50).metrics
    assert found == pytest.approx({name: expected[name] for name in ("ndcg", "map")}, rel=1e-9)


def test_made_up_pairs_are_sorted_and_differ(module):
    data = module("gpu_rivals").made_up(50, 200, 3000)
    pairs = data.pair_users() * np.int64(200) + data.items
    assert np.all(np.diff(pairs) > 0)
    assert data.item_counts.sum() == data.user_counts.sum() == data.n_pairs
    assert data.item_counts.max() > 5 * np.median(data.item_counts)


@pytest.mark.parametrize("apart", [False, True])
def test_ndcg_of_both_engines_must_agree(module, apart):
    lines = [
        {"engine": engine, "epoch": epoch, "ndcg": value}
        for engine, values in (("GPU", (0.10, 0.20, 0.3)), ("CPU", (0.101, 0.22 if apart else 0.2)))
        for epoch, value in zip((1, 4, 8), values, strict=False)
    ]
    assert len(module("gpu_checks").disagreements(lines)) == apart

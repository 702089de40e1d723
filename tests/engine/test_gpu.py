"""The torch engine where it goes its own ways: words, plans, memory, captured steps, kernels."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import TORCH_DEVICES, hopeless, import_path, plain, random_data
from nearfar import CML, Averaging, Interactions
from nearfar.engine import Problem, make_engine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import NearfarWarning, OptionError
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adam
from nearfar.method.sampling import Popularity, Shared, TwoStage
from nearfar.runtime import counter
from nearfar.runtime.counter import Purpose

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from nearfar.engine.gpu import device_plan as plan  # noqa: E402
from nearfar.engine.gpu import gpu_engine as gpu  # noqa: E402
from nearfar.engine.gpu import memory, parts, words  # noqa: E402
from nearfar.engine.gpu.parts import EAGER, parts_for  # noqa: E402

each_device = pytest.mark.parametrize("device", TORCH_DEVICES)
CUDA = TORCH_DEVICES[1]
DATA = random_data(crowded=True)
SOFT = Triplet(temperature=0.3)
VARIED = [
    plain(dim=32, negatives=3, batch=50),
    plain(dim=33, negatives=70, batch=20, spread_out=SpreadOut(0.1)),
    plain(dim=32, negatives=3, batch=50, sampler=Popularity(), geometry="ball", triplet=SOFT),
    plain(dim=16, negatives=4, batch=50, sampler=TwoStage(40), spread_out=SpreadOut(0.1)),
    plain(dim=16, negatives=4, batch=50, sampler=TwoStage(40, towards="user", sharpness=0.3)),
    plain(dim=33, negatives=47, batch=300, sampler=Shared(0.5), triplet=SOFT),
    plain(dim=9, negatives=20, batch=30, sampler=Shared(), decorrelate=Decorrelate(1.0)),
]


def torch_device(device):
    return torch.device(device.removeprefix("torch:"))


# ----------------------------------------------------------------------------------- words


@each_device
def test_words_are_those_of_the_counter(device):
    where = torch_device(device)
    for seed, step in ((0, 0), (-3, 7), (2**63 + 5, 10**12)):
        key = counter.stream(seed, Purpose.NEGATIVE, step)
        base = words.signed(int(counter.stream_base(seed, Purpose.NEGATIVE)))
        position = np.array([0, 1, 2, 10**6, 2**40])
        at = torch.tensor(position, device=where)
        stream = words.stream(base, torch.tensor(step, device=where))
        assert int(stream) % 2**64 == int(key)
        for attempt in (0, 1, 99):
            bits = counter.bits(key, position, attempt)
            assert (words.bits(stream, at, attempt).cpu().numpy().view(np.uint64) == bits).all()
            uniform = counter.uniform(key, position, attempt)
            assert (words.uniform(stream, at, attempt).cpu().numpy() == uniform).all()


@each_device
def test_permutations_are_those_of_the_counter(device):
    for n in (1, 2, 3, 4, 5, 64, 65, 1000, 4097):
        key = counter.stream(1, Purpose.ORDER, n)
        stream = torch.tensor(words.signed(int(key)), device=torch_device(device))
        index = torch.arange(n, device=stream.device)
        assert words.permuted(stream, index, n).tolist() == counter.permutation(key, n).tolist()


# ----------------------------------------------------------------------------------- plans


@each_device
@pytest.mark.parametrize(
    ("batch", "negatives"),
    [*(pytest.param(*one, marks=pytest.mark.full) for one in [(15, 4), (20, 3)]), (7, 1)],
)
def test_distinct_negatives_may_be_all_there_are(device, batch, negatives):
    """As many as there are items, also in the last batch, which is smaller."""
    problem = Problem(
        DATA, plain(dim=4, batch=batch, negatives=negatives, sampler=Popularity(2.0, distinct=True))
    )
    assert DATA.n_items == 60
    reference, steps = ReferenceEngine(problem), problem.steps_per_epoch + 2
    engine = make_engine(problem, None, device=device, threads=1)
    for step in range(steps):
        pairs = reference.pairs(step)
        engine.run(1)
        found = engine._plan.entries[0, : len(pairs), 2:].cpu().numpy()
        found = np.where(found >= 0, found - problem.n_users, -1)
        assert found.tolist() == reference.negatives(step, pairs), step


@each_device
def test_items_that_draws_do_not_give_are_drawn_by_their_clocks(device):
    """Nearly all of the weight on few items: draws alone would hardly ever give the others."""
    problem = Problem(DATA, plain(dim=4, batch=16, sampler=TwoStage(50, beta=9.0)))
    engine = make_engine(problem, None, device=device, threads=1)
    engine._draw(0, 20)
    drawn = engine._draw_different(20)
    assert (drawn.found < 50).all()
    engine._draw(0, 20)
    reference = ReferenceEngine(problem)
    expected = [reference.candidates(step) for step in range(20)]
    assert engine._plan.candidates[:20].tolist() == expected


def test_draws_that_might_be_too_few_are_looked_at():
    def never_short(n_items, count, weight=None):
        likeliest = np.arange(1, n_items + 1) / n_items
        if weight is not None:
            likeliest = np.cumsum(np.sort(weight)[::-1]) / np.sum(weight)
        data = plan.Data(*[torch.empty(0)] * 6, torch.arange(n_items), 0, n_items, 0, likeliest)
        return plan.never_short(count, data)

    assert never_short(40_000, 512)
    assert not never_short(60, 50)
    assert never_short(40_000, 3)
    assert not never_short(40, 3)  # it happens once in some 10^12 times
    assert not never_short(40_000, 512, np.arange(1, 40_001.0) ** -2)


@each_device
def test_order_is_that_of_a_stable_sort(device):
    rng = np.random.default_rng(0)
    made_of = parts_for(torch_device(device), plan.make_draws(Problem(DATA, plain())))
    for n in (1, 5, 1000, 3000):
        rows = rng.integers(-1, n // 2 + 1, n)
        listed = torch.tensor(rows, device=torch_device(device))
        row, entry = (torch.empty_like(listed, dtype=torch.int32) for _ in range(2))
        made_of.order_rows(listed, row, entry)
        order = np.argsort(rows, kind="stable")
        assert entry.tolist() == order.tolist()
        assert row.tolist() == rows[order].tolist()


# ------------------------------------------------------------------------------------ bits


@each_device
@pytest.mark.parametrize(
    "options", [pytest.param(one, marks=pytest.mark.full) for one in VARIED[:-1]] + VARIED[-1:]
)
def test_same_seed_same_bits_in_any_chunks(device, options, monkeypatch):
    problem, results = Problem(DATA, options, seed=1, horizon=100), set()
    for most, chunks in ((None, [60]), (None, [60]), (None, [1, 7, 52]), (8, [20, 40])):
        if most is not None:
            monkeypatch.setattr(memory, "_MOST_STEPS", most)
            monkeypatch.setattr(memory, "_MOST_STEPS_ON_HOST", most)
        state, losses = problem.initial_state(), []
        for count in chunks:  # resumed from what another engine has come to
            engine = make_engine(problem, state, device=device, threads=1)
            losses.append(engine.run(count)["triplet"])
            engine.points()  # looking changes nothing
            state = engine.state
        results.add((state.rows.tobytes(), state.last.tobytes(), np.concatenate(losses).tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("options", VARIED)
def test_kernels_agree_with_plain_torch_on_the_same_device(device, options):
    problem = Problem(DATA, options, seed=2, horizon=100)
    expected = gpu.GPUEngine(problem, device=device, parts=EAGER)
    found = gpu.GPUEngine(problem, device=device)
    logs = expected.run(60), found.run(60)
    for name in ("pairs", "violated", "missed"):
        assert np.array_equal(logs[0][name], logs[1][name]), name
    assert np.abs(expected.points() - found.points()).max() < 1e-4


@pytest.mark.parametrize("device", [CUDA])
def test_fast_products_are_rounded_and_hardly_differ(device):
    options = plain(dim=64, batch=200, sampler=Shared(), negatives=48, triplet=SOFT)
    problem = Problem(DATA, options, horizon=100)
    runs = [gpu.GPUEngine(problem, device=device, fast=fast) for fast in (False, True, True)]
    losses = [engine.run(60)["triplet"] for engine in runs]
    exact, fast, again = (engine.points() for engine in runs)
    assert np.array_equal(fast, again)
    assert 1e-6 < np.abs(exact - fast).max() < 0.02
    assert np.abs(losses[0] - losses[1]).max() < 0.01 * losses[0].max()


KERNELS = """
import os, sys
import numpy as np
sys.path += sys.argv[1].split(os.pathsep)
from test_gpu import DATA, VARIED
from nearfar.engine import Problem
from nearfar.engine.gpu import memory, parts
from nearfar.engine.gpu import gpu_engine as engine
memory._MOST_STEPS_ON_HOST = 3
kernels = parts.kernel_parts()
for options in VARIED:
    problem = Problem(DATA, options, seed=2, horizon=10)
    plain = engine.GPUEngine(problem, device="cpu", parts=parts.EAGER)
    found = engine.GPUEngine(problem, device="cpu", parts=kernels._replace(captured=False))
    logs = plain.run(4), found.run(4)
    for name in ("pairs", "violated", "missed"):
        assert np.array_equal(logs[0][name], logs[1][name]), (options, name)
    assert np.abs(plain.points() - found.points()).max() < 1e-5, options
    print("agree")
"""


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.slow
@needs_triton
def test_kernels_agree_with_plain_torch_in_the_interpreter():
    """Without a GPU: Triton's interpreter runs the kernels' programs one by one in NumPy."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERNELS, import_path(__file__)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["agree"] * len(VARIED), run.stderr[-2000:]


@pytest.mark.slow
@needs_triton
def test_kernels_compile_ahead_of_time_and_a_step_has_few_launches(tmp_path):
    """Without a GPU: every launch of `ahead.CASES` is compiled for one."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).parent / "ahead.py")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [import_path(__file__), os.environ.get("PYTHONPATH", "")]
            ),
            "TRITON_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    planned = {"draw_pairs", "draw_items", "draw_negatives", "find_mine"}
    per_step = {
        "two-stage": 7,
        "two-stage user": 7,
        "released": 9,
        "shared": 6,
        "covariance": 6,
        "large": 6,
        "spread": 5,
    }
    for of in found:
        launches = sum(n for name, n in of["launches"].items() if name not in planned)
        assert launches == 3 * per_step.get(of["case"], 3), of
        assert of["local"] == [], of  # all that a program holds is in registers
        if of["case"] in {"own", "wide", "two-stage", "shared", "free"}:  # sixteen bytes at a time
            read = {"gather", "compare", "update"} & set(of["launches"])
            assert all(of["wide"][name] > 0 for name in read), of
    assert {of["case"] for of in found} >= set(per_step)
    seen = set().union(*(of["launches"] for of in found))
    assert seen == planned | {
        "order_rows", "gather", "compare", "weigh", "multiply", "spread_slopes", "spread",
        "choose", "update",
    }  # fmt: skip


def test_a_triton_that_is_too_old_is_not_used(monkeypatch):
    def install(version):
        monkeypatch.setattr(parts, "find_spec", lambda name: version and name)
        monkeypatch.setattr(
            parts, "import_module", lambda name: SimpleNamespace(__version__=version)
        )

    gpu_0, draws = torch.device("cuda"), plan.make_draws(Problem(DATA, plain()))
    install(None)
    assert parts_for(gpu_0, draws) is EAGER
    for version in ("2.2.0", "3.3.1"):
        install(version)
        with pytest.warns(NearfarWarning, match=rf"^Triton {version} is too old .* need 3\.4 or"):
            assert parts_for(gpu_0, draws) is EAGER
    for version in ("3.4.0", "3.10.1+git", "4.0"):
        install(version)
        assert parts.has_triton()


# ---------------------------------------------------------------------------------- memory


def test_tables_that_do_not_fit_are_refused_with_the_figures(monkeypatch):
    problem = Problem(DATA, plain(dim=128, batch=16))
    needed = memory.table_bytes(problem)
    assert needed == 90 * (3 * 128 * 4 + 8)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)
    with pytest.raises(
        OptionError,
        match=r"90 rows with `dim`=128 and Adam need 0\.00 GiB, and cpu"
        r" has 0\.00 GiB free; use device='cpu', a smaller",
    ):
        gpu.GPUEngine(problem, device="cpu")  # fmt: skip
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 * needed)
    gpu.GPUEngine(problem, device="cpu")


@pytest.mark.full  # long
def test_with_little_memory_fewer_steps_are_planned_at_once(monkeypatch):
    problem = Problem(DATA, plain(dim=8, batch=300, negatives=20, optimiser=SGD(0.01)))
    engine = gpu.GPUEngine(problem, device="cpu")
    draws = engine._draws
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * plan.bytes_a_step(draws))
    little = gpu.GPUEngine(problem, device="cpu")
    assert (engine._n_steps, little._n_steps) == (32, 3)
    engine.run(10)
    little.run(10)
    assert np.array_equal(engine.points(), little.points())


@each_device
def test_a_plan_takes_about_as_much_as_is_said(device):
    for options in VARIED:
        problem = Problem(DATA, options)
        engine = make_engine(problem, None, device=device, threads=1)
        taken = sum(part.element_size() * part.numel() for part in engine._plan)
        assert taken <= engine._n_steps * plan.bytes_a_step(engine._draws)


# ----------------------------------------------------------------------------------- model


@hopeless
@each_device
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.full),
        {"averaging": Averaging()},
        pytest.param({"geometry": "ball"}, marks=pytest.mark.full),
    ],
)
@pytest.mark.full  # long
def test_a_run_is_the_same_on_another_device(device, changes, tmp_path):
    """Trained on one, resumed on the other: history, mean and points are those of the processor."""
    options = plain(dim=8, batch=32, optimiser=Adam(0.01), **changes)
    run = {"validation": 0.2, "k": 10, "seed": 3}
    whole = CML(options).fit(DATA, epochs=6, **run)
    there = CML(options).fit(DATA, epochs=6, device=device, **run)
    for name, devices in (("back", (device, "cpu")), ("forth", ("cpu", device))):
        for epochs, where in zip((3, 6), devices, strict=True):
            mixed = CML(options)
            mixed.fit(DATA, epochs=epochs, device=where, checkpoint=tmp_path / name, **run)
        for model in (mixed, there):
            assert model.best_epoch == whole.best_epoch
            for column in ("loss", "violated", "missed", "validation_ndcg", "validation_map"):
                expected, found = (m.history[column].to_numpy() for m in (whole, model))
                assert np.abs(expected - found).max() < 1e-4, column
            assert np.abs(model.user_vectors - whole.user_vectors).max() < 1e-4
            assert np.abs(model.item_vectors - whole.item_vectors).max() < 1e-4


@each_device
def test_a_model_from_another_device_is_saved_and_loaded(device, tmp_path):
    model = CML(dim=8, batch=64, negatives=20).fit(DATA, epochs=2, device=device)
    model.save(tmp_path / "model")
    again = CML.load(tmp_path / "model")
    assert np.array_equal(again.item_vectors, model.item_vectors)
    assert len(again.recommend(3, k=5)) == 5


@each_device
def test_a_user_without_a_negative_and_one_pair_alone(device):
    """The smallest data there are: nothing to contrast with, then one item."""
    for pairs in ([(0, 0)], [(0, 0), (1, 1)]):
        data = Interactions.from_pairs(pairs)
        problem = Problem(data, plain(dim=2, batch=4, negatives=2))
        reference = ReferenceEngine(problem)
        engine = make_engine(problem, None, device=device, threads=1)
        expected, found = reference.run(5), engine.run(5)
        for name, values in expected.items():
            assert np.abs(values - found[name]).max() < 1e-5, name

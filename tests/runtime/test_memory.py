"""Training holds its tables once: what else it allocates is small beside them."""

import tracemalloc

import numpy as np
import pytest

from conftest import PLAIN, TORCH_DEVICES, plain, random_data
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.engine import Problem, make_engine
from nearfar.method.optimiser import SGD
from nearfar.model.cml import CML

N_USERS, N_ITEMS, DIM = 2000, 30_000, 128
POINTS = (N_USERS + N_ITEMS) * DIM * 4


def sparse_data():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, N_USERS, 4000), rng.integers(0, N_ITEMS, 4000)
    return Interactions.from_rows(users, items, Ids.numbered(N_USERS), Ids.numbered(N_ITEMS))


@pytest.mark.parametrize(
    ("validation", "saved", "tables"),
    [
        (None, False, 3),  # the parameter and both moments of Adam
        (0.2, False, 4),  # and the best epoch's points
        (0.2, True, 4),
    ],
)
def test_the_peak_of_training(validation, saved, tables, tmp_path):
    data = sparse_data()

    def fit(dim):
        folder = tmp_path / str(dim) if saved else None
        model = CML(PLAIN, dim=dim, batch=64)
        return model.fit(data, epochs=2, validation=validation, checkpoint=folder, progress=False)

    fit(8)  # compiles
    tracemalloc.start()
    model = fit(DIM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tables * POINTS < peak < 1.15 * tables * POINTS
    assert model.item_vectors.shape == (N_ITEMS, DIM)


@pytest.mark.parametrize("geometry", ["sphere", "ball", "free"])
@pytest.mark.parametrize("optimiser", [plain().optimiser, SGD(0.05)])
@pytest.mark.parametrize("device", ["cpu", "reference", *TORCH_DEVICES])
def test_points_of_some_rows_and_of_all_are_those_at_the_end(geometry, optimiser, device):
    options = plain(dim=6, batch=20, negatives=2, geometry=geometry, optimiser=optimiser)
    engine = make_engine(Problem(random_data(), options), None, device=device, threads=2)
    engine.run(15)  # in the middle of an epoch: not all rows are up to date
    every, rows = engine.points(), np.array([3, 0, 3, 40])
    assert np.array_equal(engine.points(rows), every[rows])
    out = np.empty_like(every)
    assert engine.points(out=out) is out
    assert np.array_equal(out, every)
    last = engine.finish()
    assert last.shape == every.shape
    # what is brought up to date first may round differently in the last place
    assert np.abs(last - every).max() < 1e-6
    engine.close()


def test_points_of_tables_that_belong_to_somebody_else():
    problem = Problem(random_data(), plain(dim=6, batch=20))
    state = problem.initial_state()
    state.rows = np.concatenate([state.rows, state.rows])[: problem.n_rows]
    engine = make_engine(problem, state, device="cpu", threads=1)
    engine.run(5)
    every = engine.points()
    assert np.abs(engine.finish() - every).max() < 1e-6

"""Lists from a device of PyTorch against those of the processor: ties, filters, tiles, memory."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TORCH_DEVICES
from nearfar.errors import DataError, OptionError
from nearfar.search.neighbours import Finder, Points, top_k

torch = pytest.importorskip("torch")

from nearfar.search import device_search as ranking  # noqa: E402
from nearfar.search import order_keys as keys  # noqa: E402
from nearfar.search.device_search import DevicePoints  # noqa: E402

each_device = pytest.mark.parametrize("device", TORCH_DEVICES)


def csr(lists):
    indptr = np.cumsum([0, *(len(row) for row in lists)])
    return indptr, np.array([item for row in lists for item in sorted(row)], np.int32)


def normal(n_users, n_items, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (n_users, dim), (n_items, dim), (n_items,)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@contextmanager
def small_tiles():
    """Tiles of 2 users x 20 items, or thereabouts: every question crosses their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "TILE_BYTES", 2 * 20 * keys.QUICK.bytes_each)
        patch.setattr(ranking, "BLOCK_USERS", 2)
        patch.setattr(ranking, "_LISTED_BYTES", 0)
        yield


def assert_same(found, expected):
    assert found.items.dtype == np.int32
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.scores, expected.scores)


@st.composite
def questions(draw):
    """Whole numbers, whose products are exact: many ties, also between 0.0 and -0.0."""
    n_users, n_items, dim = draw(st.integers(1, 6)), draw(st.integers(1, 60)), 3
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = draw(st.integers(0, 3))
    queries, targets = (
        rng.integers(-most, most + 1, (n, dim)).astype(np.float32) * rng.choice([-1, 1], (n, dim))
        for n in (n_users, n_items)
    )
    offset = rng.integers(-2, 3, n_items).astype(np.float32)
    offset[rng.random(n_items) < 0.2] = rng.choice([-np.inf, np.inf])
    excluded = [set(np.flatnonzero(rng.random(n_items) < 0.3)) for _ in range(n_users)]
    filters = {
        "exclude": draw(st.sampled_from([None, csr(excluded)])),
        "allow": draw(st.sampled_from([None, rng.random(n_items) < 0.7])),
    }
    rows = rng.integers(0, n_users, draw(st.integers(0, 9)))
    tables = queries, targets, draw(st.sampled_from([None, offset]))
    return tables, rows, draw(st.integers(1, 70)), filters


@each_device
@given(question=questions())
def test_lists_with_ties_filters_and_ends_are_those_of_the_processor(device, question):
    tables, rows, k, filters = question
    expected = top_k(Points(*tables), rows, k, **filters)
    points = DevicePoints(*tables, device=device)
    assert_same(top_k(points, rows, k, **filters), expected)
    with small_tiles():
        assert_same(top_k(points, rows, k, **filters), expected)


@each_device
@pytest.mark.parametrize(("n_users", "n_items", "dim"), [(300, 5000, 16), (7, 40, 128), (50, 1, 3)])
@pytest.mark.parametrize("small", [False, True])
def test_lists_of_random_points_are_those_of_the_processor(device, n_users, n_items, dim, small,
                                                           monkeypatch):  # fmt: skip
    tables = normal(n_users, n_items, dim)
    if small:
        monkeypatch.setattr(ranking, "TILE_BYTES", 200_000)
    found = top_k(DevicePoints(*tables, device=device), np.arange(n_users), 20)
    expected = top_k(Points(*tables), np.arange(n_users), 20)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-5, atol=2e-5)
    assert np.mean(found.items == expected.items) > 0.999  # all but near ties


@each_device
def test_tensors_that_are_on_the_device_are_used_as_they_are(device):
    tables = normal(20, 50)
    expected = top_k(DevicePoints(*tables, device=device), np.arange(20), 5)
    tensors = [torch.tensor(x, device=device.removeprefix("torch:")) for x in tables]
    points = DevicePoints(*tensors, device=tensors[0].device)
    assert points.queries.data_ptr() == tensors[0].data_ptr()
    assert_same(top_k(points, np.arange(20), 5), expected)


@each_device
def test_it_is_a_scorer_like_any_other(device):
    queries, targets, offset = normal(30, 50)
    points = DevicePoints(queries, targets, offset, device=device)
    assert isinstance(points, Finder)
    assert not isinstance(Points(queries, targets), Finder)
    assert (points.n_users, points.n_items) == (30, 50)
    tile = np.empty((2, 11), np.float32)
    points.score_block(np.array([4, 29], np.int32), 20, tile)
    expected = queries[[4, 29]] @ targets[20:31].T + offset[20:31]
    np.testing.assert_allclose(tile, expected, rtol=1e-5, atol=1e-5)


@each_device
def test_zeros_of_both_signs_are_a_tie_at_the_cut(device):
    offset = np.array([-0.0, 0.0, -1.0, -0.0, 0.0], np.float32)
    points = DevicePoints(np.zeros((1, 1)), np.zeros((5, 1)), offset, device=device)
    for k in range(1, 6):
        assert top_k(points, [0], k).items.tolist() == [[0, 1, 3, 4, 2][:k]]


@each_device
def test_only_doubtful_rows_are_done_again(device, monkeypatch):
    seen = []

    def watched(scores, from_last, k):
        seen.append(len(scores))
        return keys.EXACT.choose(scores, from_last, k)

    monkeypatch.setattr(ranking, "EXACT", keys.Way(watched, keys.EXACT.bytes_each))
    queries, targets, _ = normal(40, 30)
    queries[[7, 11]] = 0.0  # all items are equal
    found = top_k(DevicePoints(queries, targets, device=device), np.arange(40), 3)
    assert seen == [2]
    assert found.items[[7, 11]].tolist() == [[0, 1, 2]] * 2


@each_device
def test_nan_is_an_error_that_says_where(device):
    tables = normal(5, 50)
    for at, value in ((1, np.nan), (2, -np.nan)):
        table = tables[at].copy()
        table[41] = value
        some = [*tables[:at], table, *tables[at + 1 :]]
        points, others = DevicePoints(*some, device=device), np.arange(50) != 41
        with pytest.raises(DataError, match=r"user row 3 for item row 41 is NaN.*learning rate"):
            top_k(points, [3], 2)
        found, expected = (top_k(p, [3], 2, allow=others).items for p in (points, Points(*some)))
        assert found.tolist() == expected.tolist()


@each_device
def test_a_user_without_a_place_is_named_with_the_first_item(device):
    queries, targets, _ = normal(5, 50)
    queries[3] = np.nan
    points = DevicePoints(queries, targets, device=device)
    exclude = csr([{0, 1}] * 5)
    with small_tiles(), pytest.raises(DataError, match=r"user row 3 for item row 2 is NaN"):
        top_k(points, [0, 1, 2, 3], 2, exclude=exclude)
    top_k(points, [0, 1, 2, 4], 2, exclude=exclude)


@each_device
def test_progress_counts_every_row_once(device):
    tables, counted = normal(7, 30), []
    with small_tiles():
        top_k(DevicePoints(*tables, device=device), np.arange(7), 3, progress=counted.append)
    assert counted == [2, 2, 2, 1]


@each_device
def test_nobody_and_nothing(device):
    queries, targets, _ = normal(3, 4)
    assert top_k(DevicePoints(queries, targets, device=device), [], 3).items.shape == (0, 3)
    empty = top_k(DevicePoints(queries, targets[:0], device=device), [0, 1], 3)
    assert_same(empty, top_k(Points(queries, targets[:0]), [0, 1], 3))


class Short:
    """A product for which there is no room above so many rows."""

    def __init__(self, monkeypatch, most):
        self.most, self.rows, self.product = most, [], torch.mm
        monkeypatch.setattr(torch, "mm", self)

    def __call__(self, queries, targets, out):
        self.rows.append(len(queries))
        if len(queries) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.product(queries, targets, out=out)


@each_device
def test_where_memory_runs_out_blocks_are_halved(device, monkeypatch):
    tables, counted = normal(50, 30), []
    points = DevicePoints(*tables, device=device)
    expected = top_k(points, np.arange(50), 4)
    short = Short(monkeypatch, most=15)
    found = top_k(points, np.arange(50), 4, progress=counted.append)
    assert short.rows == [50, 25, 12, 12, 12, 12, 2]
    assert counted == [12, 12, 12, 12, 2]
    np.testing.assert_array_equal(found.items, expected.items)


@each_device
def test_without_room_for_one_user_the_figures_are_given(device, monkeypatch):
    points = DevicePoints(*normal(50, 30), device=device)
    short = Short(monkeypatch, most=0)
    scores = "the scores of one user for 30 items"
    wanted = rf"has too little memory for {scores}: .* GiB.*use device='cpu'"
    with pytest.raises(OptionError, match=wanted):
        top_k(points, np.arange(50), 4)
    assert short.rows == [50, 25, 12, 6, 3, 1]


@each_device
@pytest.mark.parametrize("what", ["24 points of 8 numbers", "3 items to leave out"])
def test_without_room_for_the_tables_the_figures_are_given(device, what, monkeypatch):
    tables = normal(4, 20)

    def ask():
        points = DevicePoints(*tables, device=device)
        if "leave out" in what:
            monkeypatch.setattr(torch, "tensor", refuse)
        top_k(points, [1, 2], 2, exclude=csr([{1, 2}, {5}, {3, 4}, {1}]))

    def refuse(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    if "points" in what:
        monkeypatch.setattr(torch, "tensor", refuse)
    with pytest.raises(OptionError, match=f"has too little memory for {what}: that takes 0.00 GiB"):
        ask()


def test_a_tile_is_no_more_than_half_of_what_is_free(monkeypatch):
    points = DevicePoints(*normal(3, 1000), device="torch:cpu")
    found = top_k(points, [0], 1)
    search = ranking._DeviceSearch(points, np.arange(3, dtype=np.int32), None, None, found)
    assert search.tile(keys.QUICK) == (ranking.TILE_BYTES // (4000 + 64), 1000)
    monkeypatch.setattr(ranking, "free_bytes", lambda device: 2 * (2 * 4000 + 3 * 64))
    search = ranking._DeviceSearch(points, np.arange(2, dtype=np.int32), None, None, found)
    assert search.tile(keys.QUICK) == (2, 1000)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_own_devices_are_refused(device):
    with pytest.raises(OptionError, match=f"on a PyTorch device; got device='{device}'"):
        DevicePoints(*normal(3, 4), device=device)


def test_shapes_that_do_not_fit_are_refused():
    queries, targets, offset = normal(3, 4)
    with pytest.raises(DataError, match=r"the same width; got shapes \(3, 7\) and \(4, 8\)\."):
        DevicePoints(queries[:, 1:], targets, device="torch:cpu")
    with pytest.raises(DataError, match=r"each of the 4 targets; got shape \(3,\)\."):
        DevicePoints(queries, targets, torch.tensor(offset[1:]), device="torch:cpu")


def test_keys_have_the_order_of_lists():
    scores = np.array([np.nan, np.inf, 3, 1e-45, 0.0, -0.0, -1e-45, -3, -np.inf], np.float32)
    from_last = torch.tensor([3, 3, 3, 3, 1, 1, 3, 3, 2])
    made = keys.keys_of(torch.tensor(scores), from_last)
    assert made[4] == made[5]
    assert (made.diff()[[0, 1, 2, 3, 5, 6, 7]] < 0).all()
    items, read = keys.read(made, 4)
    assert items.tolist() == [0, 0, 0, 0, 2, 2, 0, 0, -1]
    np.testing.assert_array_equal(read.numpy(), scores)
    assert keys.read(torch.tensor([keys.NOTHING]), 4)[0].tolist() == [-1]

import sys
from types import ModuleType

import numpy as np
import pytest

from nearfar.errors import MissingExtraError, OptionError
from nearfar.model.item_map import project


def unit(n, dim, seed=0):
    found = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_pca_is_the_plane_of_the_largest_variance():
    items = unit(200, 7) * np.array([1, 5, 1, 1, 3, 1, 1], np.float32)
    made = project(items)
    centred = items.astype(float) - items.mean(axis=0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(made.axes.T @ rows[:2].T), np.eye(2), atol=1e-4)
    np.testing.assert_allclose((made.points**2).sum(axis=0), values[:2] ** 2, rtol=1e-3)
    assert made.points.dtype == np.float32
    assert made.points.shape == (200, 2)
    for axis in made.axes.T:
        assert axis[np.abs(axis).argmax()] > 0


def test_an_item_is_placed_where_its_point_is():
    items = unit(50, 5)
    made = project(items)
    for row in (0, 17, 49):
        np.testing.assert_allclose(made.place(items[row]), made.points[row], atol=1e-6)


def test_one_item_and_two_dimensions_have_a_map():
    assert project(unit(1, 2)).points.tolist() == [[0.0, 0.0]]


def test_another_method_is_refused():
    with pytest.raises(OptionError, match="`method` must be one of pca, umap; got 'tsne'"):
        project(unit(5, 3), "tsne")
    with pytest.raises(OptionError, match="at least 4 items; got 3"):
        project(unit(3, 3), "umap")


def test_without_umap_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"nearfar\[umap\]\""):
        project(unit(9, 3), "umap")


def test_with_umap_a_vector_lies_amid_its_nearest_items(monkeypatch):
    asked = {}

    class Umap:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, items):
            return items[:, :2].astype(np.float64) * 10

    fake = ModuleType("umap")
    fake.UMAP = Umap
    monkeypatch.setitem(sys.modules, "umap", fake)
    items = unit(40, 3)
    made = project(items, "umap", seed=5)
    assert asked == {"n_neighbors": 15, "random_state": 5, "n_jobs": 1}
    vector = unit(1, 3, seed=1)[0]
    near = np.argsort(-(items @ vector))[:10]
    np.testing.assert_allclose(made.place(vector), made.points[near].mean(axis=0), atol=1e-5)
    assert project(items[:5], "umap").points.shape == (5, 2)
    assert asked["n_neighbors"] == 4

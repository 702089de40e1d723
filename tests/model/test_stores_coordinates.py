"""The layout of a table and the coordinates of its vectors."""

import numpy as np
import pytest

import nearfar as nf
from nearfar.errors import DataError, OptionError
from nearfar.model.stores.coordinates import item_coordinates, queries
from nearfar.model.stores.vector_store import Layout
from stored import fitted


@pytest.mark.parametrize("popularity", [None, 0.0, 1.3])
@pytest.mark.parametrize("geometry", ["sphere", "ball", "free"])
def test_the_inner_product_is_the_score(geometry, popularity):
    model = fitted(geometry=geometry)
    points = model.user_vectors
    found = queries(model, points, popularity=popularity) @ item_coordinates(model).T
    for row, user in enumerate(model.interactions.user_ids):
        listed = model.recommend(user, 30, exclude_seen=False, popularity=popularity)
        order = model.interactions.item_ids.rows(listed["item_id"].to_list())
        less = 0.0 if geometry == "sphere" else 1 - np.sum(points[row] ** 2) / 2
        np.testing.assert_allclose(found[row, order], listed["score"] - less, atol=2e-6)


@pytest.mark.parametrize(("options", "width"), [
    ({"prior": None}, 4), ({}, 5), ({"prior": None, "geometry": "ball"}, 5),
    ({"geometry": "free"}, 6), ({"prior": nf.Prior(0, gamma=0.3)}, 5),
    ({"prior": nf.Prior(gamma=0)}, 4),
])  # fmt: skip
def test_the_width_does_not_depend_on_the_setting_of_the_dial(options, width):
    model = fitted(**options)
    assert item_coordinates(model).shape == (30, width)
    assert queries(model, model.user_vectors).shape == (12, width)
    assert item_coordinates(model).dtype == queries(model, model.user_vectors).dtype == np.float32


def test_a_new_user_searches_with_a_folded_in_point():
    model = fitted()
    asked = queries(model, [model.fold_in([0, 5])])
    order = np.argsort(-(item_coordinates(model) @ asked[0]), kind="stable")
    listed = model.recommend(liked=[0, 5], k=28)["item_id"].to_list()
    ids = model.interactions.item_ids.take(order).to_list()
    assert [one for one in ids if one not in {0, 5}] == listed


def test_wrong_queries_are_named():
    model = fitted()
    with pytest.raises(DataError, match=r"`points` must have the 4 columns .* got 3"):
        queries(model, np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"`points` must be a table of rows of numbers"):
        queries(model, np.zeros(4))
    with pytest.raises(OptionError, match="`popularity`"):
        queries(fitted(prior=None), np.zeros((1, 4)), popularity=1)
    with pytest.raises(OptionError, match="`model`"):
        queries(None, np.zeros((1, 4)))


LAYOUT = Layout("items", "text", 4, norm=False, weight=True)


@pytest.mark.parametrize("text", [
    None, "", "hello", "3", "[]", "{}", '{"nearfar": 1}', '{"nearfar": 2, "what": "items"}',
    LAYOUT.to_text().replace('"nearfar": 1', '"nearfar": 2'),
    LAYOUT.to_text().replace("}", ', "more": 1}'),
])  # fmt: skip
def test_a_description_that_nearfar_did_not_write_is_none(text):
    assert Layout.from_text(LAYOUT.to_text()) == LAYOUT
    assert Layout.from_text(text) is None

"""Over HTTP: ids that the model does not know, and users and items without interactions."""

import re

import numpy as np
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.search.item_index import ItemIndex
from nearfar.serve import create_app
from served import ids, listed, pairs, post, serving


@pytest.fixture(scope="module")
def fitted():
    """Users 0 and 4 and items 0 and 59 are on the axes without any pair."""
    data = random_data()
    new = np.isin(data.pair_users(), [0, 4]) | np.isin(data.items, [0, 59])
    return nf.CML(PLAIN, dim=8).fit(data.subset(~new), epochs=1)


@pytest.fixture(scope="module")
def client(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fitted.save(folder)
    with serving(create_app(folder)) as one:
        yield one


def test_unknown_ids_of_filters_are_ignored_and_counted(client, fitted):
    answer = post(client, "/v1/recommend", user=3, deny=[5, 777, "x", "7"])
    assert answer["unknown"] == {"deny": 2}
    assert listed(fitted.recommend(3, deny=[5, 7])) == pairs(answer)
    answer = post(client, "/v1/recommend", user=3, allow=[777, 5, 6, 8, -1], deny=["tea"])
    assert answer["unknown"] == {"allow": 2, "deny": 1}
    assert listed(fitted.recommend(3, allow=[5, 6, 8])) == pairs(answer)
    answer = post(client, "/v1/recommend", user=3, allow=[777])
    assert (answer["unknown"], answer["results"]) == ({"allow": 1}, [])
    answer = post(client, "/v1/recommend", items=[5, 7], deny=[777])
    assert answer["unknown"] == {"deny": 1}
    assert listed(fitted.recommend(liked=[5, 7])) == pairs(answer)
    assert post(client, "/v1/recommend", user=3)["unknown"] == {}
    assert post(client, "/v1/similar/items", item=3)["unknown"] == {}


def test_filters_may_name_the_whole_catalogue_and_more(client, fitted):
    denied = [*range(1, 50), *range(1000, 21_000)]
    answer = post(client, "/v1/recommend", user=3, deny=denied, k=100)
    assert answer["unknown"] == {"deny": 20_000}
    assert listed(fitted.recommend(3, k=100, deny=range(1, 50))) == pairs(answer)
    assert ids(post(client, "/v1/recommend", user=3, allow=denied)) == ids(
        post(client, "/v1/recommend", user=3, allow=list(range(1, 50)))
    )
    error = post(client, "/v1/recommend", 413, user=3, deny=list(range(300_000)))["error"]
    assert error["type"] == "BodyTooLarge"


@pytest.mark.parametrize(
    ("path", "asked", "named"),
    [
        ("/v1/recommend", {"user": 4}, "user id 4, so .* as `items` instead of `user`"),
        ("/v1/map/position", {"user": "4"}, "user id 4, so .* as `items` instead of `user`"),
        ("/v1/similar/users", {"user": 0}, "user id 0, so "),
        ("/v1/similar/items", {"item": 59}, "item id 59, so .*another item"),
        ("/v1/recommend", {"items": [5, 59, 0]}, "item ids 59, 0, so .*another item"),
    ],
)
def test_without_training_interactions_is_404_with_the_remedy(client, path, asked, named):
    error = post(client, path, 404, **asked)["error"]
    assert error["type"] == "UnknownIdError"
    pattern = f"The model has no training interactions of {named}"
    assert re.search(pattern, error["message"]), error


@pytest.mark.parametrize("index", [False, True])
def test_they_are_in_no_list(fitted, tmp_path, index):
    made = None
    if index:
        pytest.importorskip("faiss")
        made = tmp_path / "index"
        ItemIndex.build(fitted, 0.9, k=5).save(made)
    fitted.save(tmp_path / "model")
    with serving(create_app(tmp_path / "model", index=made)) as client:
        for path, asked, new in [
            ("/v1/recommend", {"user": 3}, {0, 59}),
            ("/v1/recommend", {"user": 3, "allow": list(range(60))}, {0, 59}),
            ("/v1/recommend", {"items": [3, 5], "exclude_seen": False}, {0, 59}),
            ("/v1/similar/items", {"item": 5}, {0, 59}),
            ("/v1/similar/users", {"user": 5}, {0, 4}),
        ]:
            found = ids(post(client, path, k=60, **asked))
            assert len(found) > 20
            assert not new & set(found)


def test_the_description_names_the_counts(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert "were ignored" in schemas["Results"]["properties"]["unknown"]["description"]
    for name in ("allow", "deny"):
        assert "ignored and counted" in schemas["Recommend"]["properties"][name]["description"]

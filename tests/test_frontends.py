"""One contract for all that can be asked for lists: exact search, an index, HTTP."""

import numpy as np
import pytest

import nearfar as nf
from conftest import PLAIN, checkerboard
from nearfar.errors import UnknownIdError
from nearfar.method.optimiser import Adagrad, Adam
from nearfar.method.sampling import Shared
from nearfar.search.item_index import ItemIndex
from nearfar.serve import create_app
from served import serving

MODELS = {
    "sphere": {},
    "ball": {"geometry": "ball", "optimiser": Adagrad(0.2)},
    "the default": {
        "sampler": Shared(),
        "negatives": 12,
        "triplet": nf.Options().triplet,
        "averaging": nf.Averaging(),
    },
}


class Library:
    """Lists from the library, by exact search or an index."""

    def __init__(self, model, index=None):
        self.model, self.index = model, index

    def recommend(self, user=None, liked=None, **how):
        frame = self.model.recommend(user, liked=liked, index=self.index, **how)
        return list(frame.select("item_id", "score").iter_rows())

    def similar(self, item, k):
        frame = self.model.similar_items(item, k, index=self.index)
        return list(frame.select("item_id", "score").iter_rows())


class Http:
    """Lists from a server."""

    def __init__(self, client):
        self.client = client

    def ask(self, path, **asked):
        answer = self.client.post(path, json=asked)
        if answer.status_code == 404:
            raise UnknownIdError(answer.json()["error"]["message"])
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["score"]) for one in answer.json()["results"]]

    def recommend(self, user=None, liked=None, **how):
        return self.ask("/v1/recommend", user=user, items=liked, **how)

    def similar(self, item, k):
        return self.ask("/v1/similar/items", item=item, k=k)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    options = {"dim": 3, "batch": 8, "optimiser": Adam(0.03), **MODELS[request.param]}
    made = nf.CML(PLAIN, **options).fit(checkerboard(), epochs=40)
    folder = tmp_path_factory.mktemp("model")
    made.save(folder / "model")
    ItemIndex.build(made, recall=1.0, k=5).save(folder / "index")
    return made, folder


@pytest.fixture(scope="module", params=["exact", "mapped", "index", "http", "http with an index"])
def front(request, model):
    made, folder = model
    if request.param == "exact":
        yield Library(made)
    elif request.param == "mapped":
        yield Library(nf.CML.load(folder / "model", mmap=True))
    elif request.param == "index":
        yield Library(made, ItemIndex.load(folder / "index", made))
    else:
        index = folder / "index" if "index" in request.param else None
        with serving(create_app(folder / "model", index=index)) as client:
            yield Http(client)


def ids(found):
    return [one for one, _ in found]


def test_the_one_right_answer_comes_first(front):
    for user in range(20):
        assert ids(front.recommend(user, k=1)) == [user]


def test_lists_are_those_of_exact_search(front, model):
    made, _ = model
    points = made.scorer()
    for user in (0, 7, 19):
        expected = np.zeros((1, 20), np.float32)
        points.score_block(np.array([user], np.int32), 0, expected)
        found = front.recommend(user, k=20, exclude_seen=False)
        assert sorted(ids(found)) == list(range(20))
        order = expected[0][ids(found)]
        assert (np.diff(order) <= 1e-6).all()
        squared = ((made.user_vectors[user] - made.item_vectors[ids(found)]) ** 2).sum(axis=1)
        assert [score for _, score in found] == pytest.approx(1 - squared / 2, abs=1e-5)


def test_what_is_seen_is_left_out_and_the_rest_is_all_there(front, model):
    made, _ = model
    for user in (3, 4):
        seen = made.interactions.positives(user).tolist()
        assert sorted(ids(front.recommend(user, k=100))) == sorted(set(range(20)) - set(seen))


def test_filters_come_before_the_cut(front):
    assert ids(front.recommend(4, k=2, allow=[4])) == [4]
    assert ids(front.recommend(4, k=1, deny=[4])) != [4]
    odd = list(range(1, 20, 2))
    assert sorted(ids(front.recommend(4, k=10, allow=odd))) == odd
    assert ids(front.recommend(4, k=3, allow=[4], deny=[4])) == []


def test_a_list_is_the_beginning_of_a_longer_one(front):
    long = front.recommend(6, k=11)
    for k in range(1, 11):
        found = front.recommend(6, k=k)
        assert ids(found) == ids(long)[:k]
        assert [s for _, s in found] == pytest.approx([s for _, s in long[:k]], abs=1e-6)


def test_an_unseen_user_gets_what_goes_with_what_they_like(front, model):
    made, _ = model
    found = front.recommend(liked=[0, 2, 4, 6, 8, 10, 12, 14], k=2)
    assert sorted(ids(found)) == [16, 18]
    expected = made.recommend(liked=[0, 2, 4, 6, 8, 10, 12, 14], k=2)
    assert ids(found) == expected["item_id"].to_list()
    assert [s for _, s in found] == pytest.approx(expected["score"].to_list(), abs=1e-5)


def test_similar_items_are_of_one_colour_and_not_the_item_itself(front):
    for item in (3, 8):
        found = ids(front.similar(item, 9))
        assert sorted(found) == [i for i in range(20) if i % 2 == item % 2 and i != item]


def test_an_unknown_id_is_named(front):
    with pytest.raises(UnknownIdError, match="999"):
        front.recommend(999, k=1)
    with pytest.raises(UnknownIdError, match="999"):
        front.recommend(liked=[2, 999], k=1)
    with pytest.raises(UnknownIdError, match="999"):
        front.similar(999, 1)

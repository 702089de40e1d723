"""Copies of the public objects: by pickle and by deepcopy, at any time."""

import copy
import pickle

import numpy as np
import pytest

import nearfar as nf
from conftest import SAMPLERS, checkerboard, plain, titled
from nearfar.data.ids import Ids
from nearfar.method import presets
from nearfar.prepare import Rules, prepare
from nearfar.search.neighbours import top_k

WAYS = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "oldest pickle": lambda thing: pickle.loads(pickle.dumps(thing, protocol=2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=WAYS)
def copied(request):
    return WAYS[request.param]


USES = {
    "nothing": lambda model: None,
    "recommend": lambda model: model.recommend([0, 1], k=3),
    "recommend(liked)": lambda model: model.recommend(liked=[2, 4], k=3),
    "similar": lambda model: (model.similar_items(3), model.similar_users(3)),
    "fold_in": lambda model: (model.fold_in([2]), model.fold_in_item([3])),
    "evaluate": lambda model: model.keep_evaluation(evaluation(model)),
    "projection": lambda model: model.projection,
    "all": lambda model: [use(model) for name, use in USES.items() if name != "all"],
}


def evaluation(model):
    train = model.interactions
    test = nf.Interactions.from_rows(
        range(train.n_users), range(train.n_items), train.user_ids, train.item_ids
    )
    return nf.evaluate(model, train, test, k=3, threads=1)


def answers(model):
    frames = [model.recommend([0, 7], k=4), model.recommend(liked=[2, 4], k=4),
              model.similar_items(3, k=4), model.similar_users(3, k=4)]  # fmt: skip
    return [frame.rows() for frame in frames]


@pytest.mark.parametrize("use", USES)
def test_a_model_is_copied_at_any_time(titled_model, saved_model, copied, use):
    model = nf.CML.load(saved_model)
    USES[use](model)
    made = copied(model)
    assert answers(made) == answers(titled_model)
    assert made.options == model.options
    assert made.metrics == model.metrics
    assert made.history.equals(model.history)
    assert made.interactions == model.interactions
    assert made.interactions.titles([0, 1]) == model.interactions.titles([0, 1])
    assert np.array_equal(made.projection.points, model.projection.points)
    assert answers(model) == answers(titled_model)


def test_a_model_mapped_into_memory_is_copied(titled_model, saved_model, copied):
    model = nf.CML.load(saved_model, mmap=True)
    model.recommend(liked=[2, 4])
    assert answers(copied(model)) == answers(titled_model)


def test_a_copy_of_a_model_goes_on_by_itself(titled_model, saved_model, copied):
    made = copied(nf.CML.load(saved_model))
    made.recommend(liked=[2, 4])
    made.fit(checkerboard(), epochs=1)
    assert answers(nf.CML.load(saved_model)) == answers(titled_model)
    assert answers(made) != answers(titled_model)


def test_an_unfitted_model_is_copied(copied):
    assert copied(nf.CML(plain(dim=5))).options == plain(dim=5)


def test_caches_are_left_out(saved_model):
    """A copy that was used has no more to send to another process than a fresh one."""
    model = nf.CML.load(saved_model)
    fresh = len(pickle.dumps(model))
    USES["recommend(liked)"](model)
    USES["similar"](model)
    assert model.interactions.contains(0, 2)
    assert model.interactions.item_ids.row(3) == 3
    assert len(pickle.dumps(model)) <= fresh


@pytest.mark.parametrize("mapped", [False, True])
def test_an_index_is_copied(titled_model, tmp_path, copied, mapped):
    pytest.importorskip("faiss")
    index = nf.ItemIndex.build(titled_model, recall=0.5, k=3)
    if mapped:
        index.save(tmp_path / "index")
        index = nf.ItemIndex.load(tmp_path / "index", titled_model)
    expected = titled_model.recommend([0, 7], k=3, index=index).rows()
    made = copied(index)
    assert made.digest() == index.digest()
    assert titled_model.recommend([0, 7], k=3, index=made).rows() == expected
    both_model, both_index = copied((titled_model, made))
    assert both_model.recommend([0, 7], k=3, index=both_index).rows() == expected
    made.save(tmp_path / "again")
    again = nf.ItemIndex.load(tmp_path / "again", titled_model)
    assert again.digest() == index.digest()


def test_a_copy_of_a_mapped_index_does_not_need_its_file(titled_model, tmp_path):
    pytest.importorskip("faiss")
    nf.ItemIndex.build(titled_model, recall=0.5, k=3).save(tmp_path / "index")
    index = nf.ItemIndex.load(tmp_path / "index", titled_model)
    expected = titled_model.recommend([0, 7], k=3, index=index).rows()
    sent = pickle.dumps(index)
    index.save(tmp_path / "moved")
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    for made in (pickle.loads(sent), nf.ItemIndex.load(tmp_path / "moved", titled_model)):
        assert titled_model.recommend([0, 7], k=3, index=made).rows() == expected


@pytest.mark.parametrize("ids", [list("cab"), [3, 1, 2], np.array([5, 6], np.int32)])
def test_ids_are_copied(copied, ids):
    made = Ids(ids, name="user")
    assert made.row(ids[0]) >= 0
    assert copied(made) == made
    assert copied(made).name == "user"
    assert copied(made).dtype == made.dtype
    assert copied(made).row(ids[0]) == made.row(ids[0])


def test_interactions_are_copied_and_stay_read_only(copied):
    data = titled(nf.Interactions.from_pairs([(1, 2, 30), (1, 3, 10), (2, 3, 20)]))
    assert data.fingerprint
    made = copied(data)
    assert made == data
    assert made.item_table.equals(data.item_table)
    assert made.times.tolist() == data.times.tolist()
    for array in (made.indptr, made.items, made.times, made.item_counts):
        assert not array.flags.writeable


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_options_are_copied(copied, sampler):
    options = plain(sampler=SAMPLERS[sampler], negatives=None)
    assert copied(options) == options


def test_what_is_measured_is_copied(copied, titled_model):
    found = evaluation(titled_model)
    made = copied(found)
    assert made.to_dict() == found.to_dict()
    assert made.per_user.equals(found.per_user)
    assert copied(presets.long_tail(0.5)) == presets.long_tail(0.5)


def test_scorers_are_copied(copied, board, titled_model):
    pytest.importorskip("faiss")
    index = nf.ItemIndex.build(titled_model, recall=0.5, k=3)
    scorers = [titled_model.scorer(), nf.baselines.MostPopular(board),
               nf.baselines.Random(20, 20, seed=3),
               index.scorer(titled_model.user_vectors, threads=1)]  # fmt: skip
    for scorer in scorers:
        found = top_k(scorer, [0, 5], k=4)  # computes what is kept
        again = top_k(copied(scorer), [0, 5], k=4)
        assert np.array_equal(found.items, again.items)
        assert np.array_equal(found.scores, again.scores)


def test_a_report_is_copied(copied):
    pairs = checkerboard().to_frame().rename({"user_id": "user", "item_id": "item"})
    _, report, *_ = prepare(pairs, Rules())
    assert str(copied(report)) == str(report)

"""The index: what it finds beside exact search, what it promises whatever it finds, and on disk."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, checkerboard, random_data
from nearfar.engine import Problem
from nearfar.errors import DataError, MissingExtraError, NotFittedError, OptionError, StoreError
from nearfar.method.optimiser import Adam
from nearfar.method.prior import ItemWeights
from nearfar.runtime import store
from nearfar.search import inverted_lists as lists
from nearfar.search import item_index as approximate
from nearfar.search import probing
from nearfar.search.item_index import Figures, ItemIndex
from nearfar.search.lift import aim, lifted
from nearfar.search.neighbours import Points, top_k
from nearfar.search.probing import IndexedPoints

faiss = pytest.importorskip("faiss")

UNWEIGHTED = ItemWeights(0.0, np.zeros(900, np.float32))


def clustered(n_users=300, n_items=900, dim=8, seed=0, scale=1.0):
    """Points around 30 places of the sphere; what is near is in other lists, too."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(30, dim))
    draw = lambda n: places[rng.integers(0, 30, n)] + 0.6 * rng.normal(size=(n, dim))  # noqa: E731
    rows = draw(n_users + n_items)
    rows *= scale * rng.uniform(0.5, 1.0, (len(rows), 1)) if scale != 1.0 else 1.0
    if scale == 1.0:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:n_users].astype(np.float32), rows[n_users:].astype(np.float32)


def scorer_with(n_probed, scale=1.0, threads=1, **sizes):
    """An indexed scorer that looks through so many lists, and the exact one."""
    queries, items = clustered(scale=scale, **sizes)
    offset = None if scale == 1.0 else -0.5 * np.sum(items * items, axis=1)
    points = Points(queries, items, offset)
    return IndexedPoints(
        points, lists.Lists.of(items, seed=0, threads=1), n_probed, threads
    ), points


def seen_items(n_users, n_items, most=60, seed=1):
    """Random items for each user to leave out."""
    rng = np.random.default_rng(seed)
    each = [np.sort(rng.permutation(n_items)[: rng.integers(0, most)]) for _ in range(n_users)]
    indptr = np.cumsum([0, *map(len, each)])
    return indptr.astype(np.int64), np.concatenate(each).astype(np.int32)


@pytest.fixture(scope="module")
def model():
    """300 items, so an index has 17 lists."""
    data = random_data(n_users=400, n_items=300, share=0.05)
    return nf.CML(PLAIN, dim=8, batch=64, optimiser=Adam(0.03)).fit(data, epochs=3)


@pytest.fixture(scope="module")
def index(model):
    return ItemIndex.build(model, 0.8, k=5)


# ------------------------------------------------------------------------------ the contract


@pytest.mark.parametrize("geometry", ["sphere", "ball", "free"])
def test_the_one_right_answer_comes_first(geometry):
    model = nf.CML(PLAIN, dim=3, batch=8, geometry=geometry, optimiser=Adam(0.03))
    model.fit(checkerboard(), epochs=20, threads=1)
    index = ItemIndex.build(model, 0.7, k=1)
    found = model.recommend_all(k=1, index=index)
    assert (found["user_id"] == found["item_id"]).mean() >= 0.7
    assert len(found) == 20


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_list_is_the_same_in_any_company_and_on_any_threads(scale, threads, monkeypatch):
    monkeypatch.setattr(probing, "_BLOCK_USERS", 7)
    scorer, _ = scorer_with(3, scale, threads=threads)
    alone, _ = scorer_with(3, scale)
    exclude = seen_items(300, 900)
    rows = np.random.default_rng(5).permutation(300)
    many = top_k(scorer, rows, 10, exclude=exclude)
    for place in range(0, 300, 13):
        one = top_k(alone, [rows[place]], 10, exclude=exclude)
        np.testing.assert_array_equal(one.items[0], many.items[place])
        np.testing.assert_array_equal(one.scores[0], many.scores[place])


@pytest.mark.parametrize("scale", [1.0, 0.4, 3.0])
def test_what_is_found_has_its_score_and_its_place(scale):
    scorer, points = scorer_with(4, scale)
    found = top_k(scorer, np.arange(300), 12)
    exact = points.queries.astype(np.float64) @ points.targets.T.astype(np.float64)
    if points.offset is not None:
        exact += points.offset
    expected = np.take_along_axis(exact, found.items.astype(np.int64), axis=1)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6, atol=1e-6)
    down = np.diff(found.scores, axis=1)
    assert (down <= 0).all()
    assert (np.diff(found.items, axis=1)[down == 0] > 0).all()
    best = np.argsort(-exact, axis=1, kind="stable")[:, :12]
    recall = np.mean([np.isin(b, f).mean() for b, f in zip(best, found.items, strict=True)])
    assert 0.5 < recall < 1  # lists were left out, and they were not the near ones


def test_equal_items_come_in_the_order_of_their_rows():
    queries, items = clustered(n_items=40)
    items = np.repeat(items, 5, axis=0)[np.random.default_rng(0).permutation(200)]
    points = Points(queries, items)
    scorer = IndexedPoints(points, lists.Lists.of(items, seed=0, threads=1), 3, 1)
    found = top_k(scorer, np.arange(300), 3)
    for row in found.items:
        same = np.flatnonzero((items == items[row[0]]).all(axis=1))
        assert row.tolist() == same[:3].tolist()


def test_filters_come_before_the_cut():
    scorer, points = scorer_with(2)
    exclude = seen_items(300, 900, most=880)
    allow = np.random.default_rng(2).random(900) < 0.8
    for mask in (None, allow):
        found = top_k(scorer, np.arange(300), 10, exclude=exclude, allow=mask)
        exact = top_k(points, np.arange(300), 10, exclude=exclude, allow=mask)
        np.testing.assert_array_equal(found.items >= 0, exact.items >= 0)  # as many, always
        for user, items in enumerate(found.items):
            listed = items[items >= 0]
            assert len(set(listed)) == len(listed)
            assert not np.isin(listed, exclude[1][exclude[0][user] : exclude[0][user + 1]]).any()
            assert mask is None or mask[listed].all()


def test_a_short_list_is_looked_for_in_more_lists_before_it_is_made_exactly(monkeypatch):
    scorer, _ = scorer_with(1)
    probed, nearest = [], scorer.lists.nearest
    exactly = []

    def asked(query, n, *, n_probed, allow):
        probed.append(n_probed)
        return nearest(query, n, n_probed=n_probed, allow=allow)

    monkeypatch.setattr(scorer.lists, "nearest", asked)
    monkeypatch.setattr(probing._ListSearch, "exactly", lambda self, places: exactly.append(places))
    found = top_k(scorer, [7], 150)
    assert probed == [1, 2, 4, 8, 16]  # with 8 there would be enough
    assert (found.items >= 0).all()
    top_k(scorer, [7], 800)
    assert probed[5:] == [1, 2, 4, 8, 16]  # twice that are more than all
    assert [list(places) for places in exactly] == [[], [0]]


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_few_allowed_items_are_searched_exactly(scale, monkeypatch):
    scorer, points = scorer_with(2, scale)
    exclude, allow = seen_items(300, 900), np.zeros(900, bool)
    allow[np.random.default_rng(3).permutation(900)[:40]] = True
    monkeypatch.setattr(scorer.lists, "nearest", None)
    counted = []
    found = top_k(scorer, np.arange(300), 6, exclude=exclude, allow=allow, progress=counted.append)
    exact = top_k(points, np.arange(300), 6, exclude=exclude, allow=allow)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-6, atol=1e-6)
    assert counted == [300]


def test_k_beyond_the_lists_and_beyond_the_catalogue_gives_what_there_is():
    scorer, points = scorer_with(1, n_users=20)
    assert (top_k(scorer, np.arange(20), 400).items >= 0).all()
    for k in (890, 900, 1000):
        found = top_k(scorer, np.arange(20), k)
        np.testing.assert_array_equal(found.items, top_k(points, np.arange(20), k).items)
    nothing = top_k(scorer, [3], 4, allow=np.zeros(900, bool))
    assert nothing.items.tolist() == [[-1] * 4]
    assert (nothing.scores == -np.inf).all()
    assert top_k(scorer, [], 4).items.shape == (0, 4)


def test_all_lists_are_exact_search_bit_for_bit():
    scorer, points = scorer_with(30)
    assert len(scorer.lists) == 30
    exclude = seen_items(300, 900)
    found = top_k(scorer, np.arange(300), 9, exclude=exclude)
    exact = top_k(points, np.arange(300), 9, exclude=exclude)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_a_tile_of_scores_is_exact_and_progress_counts_every_row():
    scorer, points = scorer_with(2)
    tiles = np.empty((2, 3, 50), np.float32)
    for one, tile in zip((scorer, points), tiles, strict=True):
        one.score_block(np.array([5, 1, 9], np.int32), 100, tile)
    np.testing.assert_array_equal(*tiles)
    for threads in (1, 2):
        counted = []
        scorer.threads = threads
        top_k(scorer, np.arange(300), 3, progress=counted.append)
        assert sum(counted) == 300
        assert len(counted) == 5


def test_models_use_it_for_users_and_items(model, index):
    for ask in ("recommend", "similar_items"):
        exact, found = (getattr(model, ask)(range(300), k=5, index=one) for one in (None, index))
        assert found.schema == exact.schema
        assert len(found) == len(exact)
        query = exact.columns[0]
        same = exact.join(found, on=[query, "item_id"])
        assert 0.6 < len(same) / len(exact) < 1
        assert same["score"].to_numpy() == pytest.approx(same["score_right"].to_numpy(), abs=1e-6)
    assert (found["query_id"] != found["item_id"]).all()
    one = model.recommend(3, k=5, index=index)
    assert one.equals(model.recommend([3], k=5, index=index).drop("user_id"))


# ----------------------------------------------------------------------------- with a prior


@pytest.fixture(scope="module", params=["sphere", pytest.param("ball", marks=pytest.mark.full)])
def popular(request):
    """A model whose lists depend on the setting of its dial."""
    data = random_data(n_users=400, n_items=300, share=0.05)
    how = nf.CML(PLAIN, dim=8, batch=64, optimiser=Adam(0.03), geometry=request.param,
                 prior=nf.Prior(gamma=0.1))  # fmt: skip
    return how.fit(data, epochs=3, threads=1)


def test_distances_between_lifted_points_are_in_the_order_of_the_scores():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=6), rng.normal(size=(50, 6)).astype(np.float32)
    b = rng.uniform(0, 2, 50).astype(np.float32)
    for x in (0.0, 0.5, 3.0):
        q = np.append(u, aim(x))
        power = np.sum((u - v) ** 2, axis=1) - 2 * x * b
        distance = np.sum((q - lifted(v, b)) ** 2, axis=1)
        np.testing.assert_allclose(np.ptp(distance - power), 0, atol=1e-5)
    assert lifted(v, None) is v


@pytest.mark.parametrize("popularity", [None, 0, 0.5, 2])
def test_an_index_finds_the_lists_of_any_setting(popular, popularity):
    index = ItemIndex.build(popular, 0.8, k=5)
    assert 0 < index.figures.n_probed <= index.figures.n_probed_below < 17
    assert index.figures.popularity == 1
    for ask in (popular.recommend, popular.similar_items):
        setting = {} if popularity is None else {"popularity": popularity}
        exact, found = (ask(range(300), k=5, index=one, **setting) for one in (None, index))
        same = exact.join(found, on=[exact.columns[0], "item_id"])
        assert len(same) / len(exact) > 0.6
        assert (same["score"] == same["score_right"]).all()
        for _, part in found.group_by(exact.columns[0], maintain_order=True):
            assert part["score"].is_sorted(descending=True)
    one = popular.recommend(3, k=5, index=index, popularity=popularity)
    many = popular.recommend([3], k=5, index=index, popularity=popularity)
    assert one.equals(many.drop("user_id"))


def test_all_lists_are_exact_search_at_any_setting(popular, tmp_path):
    ItemIndex.build(popular, 1, k=5).save(tmp_path)
    index = ItemIndex.load(tmp_path, popular)
    for popularity in (None, 0, 0.5, 3):
        exact = popular.recommend_all(k=5, popularity=popularity)
        assert popular.recommend_all(k=5, popularity=popularity, index=index).equals(exact)


def test_the_target_is_that_of_the_lists_with_the_prior(popular):
    index = ItemIndex.build(popular, 0.8, k=5)
    data = popular.interactions
    queries, rows, seen = popular.user_vectors, np.arange(400), (data.indptr, data.items)
    for popularity in (None, 1, 0):
        assert index.measure(queries, rows, seen, popularity=popularity) > 0.75
    assert index.measure(queries, rows, seen) == index.measure(queries, rows, seen, popularity=1)
    few = Figures(17, index.figures.n_probed, 5, 0.8, 0.8, 200, 1.0, 1)
    few = ItemIndex(index._lists, index._points, few, index._weights)
    assert few.measure(queries, rows, seen, popularity=0) < 0.7
    assert few.measure(queries, rows, seen) == index.measure(queries, rows, seen)
    assert "of 200 users at popularity 1, " in repr(index)


def test_an_index_of_another_prior_is_refused(popular, tmp_path):
    index = ItemIndex.build(popular, 0.8, k=5)
    index.save(tmp_path)
    how = replace(popular.options, prior=nf.Prior(gamma=0.2))
    for options in (how, replace(how, prior=None)):
        other = nf.CML(options).fit(popular.interactions, epochs=3, threads=1)
        assert (other.item_vectors == popular.item_vectors).all()
        with pytest.raises(OptionError, match=r"another popularity prior \(gamma 0.1\) than the"):
            other.recommend(3, index=index)
        with pytest.raises(StoreError, match="or their weights, are not those of this one"):
            ItemIndex.load(tmp_path, other)
    plain = ItemIndex.build(other, 0.8, k=5)
    with pytest.raises(OptionError, match=r"`popularity` is 0\.5, but the model of the"):
        plain.scorer(other.user_vectors, popularity=0.5)


# ----------------------------------------------------------------------------------- recall


def test_fewer_lists_are_looked_through_for_less_recall(model):
    made = [ItemIndex.build(model, recall, k=5) for recall in (0.4, 0.8, 0.95, 1)]
    probed = [one.figures.n_probed for one in made]
    assert probed == sorted(set(probed))
    for one, wanted in zip(made, (0.4, 0.8, 0.95, 1), strict=True):
        assert one.recall > wanted - 0.05
        assert one.figures.wanted == wanted
    assert made[-1].exact
    assert made[-1].recall == 1.0


def test_the_fewest_lists_are_those_a_search_needs(model, index):
    """`_least_probed` never searches; here all numbers of lists are tried out."""
    points = model.scorer()
    rows, queries = np.arange(0, 400, 3), model.user_vectors[::3]
    exact = top_k(points, rows, 5)
    plain = lists.Lists.of(points.targets, seed=0, threads=1)
    reached = []
    for n_probed in range(1, len(plain) + 1):
        found = top_k(IndexedPoints(points, plain, n_probed, 1), rows, 5)
        reached.append(np.mean([np.isin(e, f).mean() for e, f in zip(exact.items, found.items,
                                                                     strict=True)]))  # fmt: skip
    for recall in (0.3, 0.6, 0.9):
        least = approximate._least_probed(plain, queries, exact.items, recall)
        assert reached[least - 1] >= recall - 1e-9
        assert least == 1 or reached[least - 2] < recall
    assert approximate._least_probed(plain, queries, exact.items, 1.0) == len(plain)


def test_a_bad_index_says_how_bad_it_is():
    """The recall is measured by searching, not taken from what was asked for."""
    scorer, points = scorer_with(1)
    bad = ItemIndex(scorer.lists, points, Figures(30, 1, 5, 0.99, 0.99, 0), UNWEIGHTED)
    measured = bad.measure(points.queries, np.arange(300))
    exact, found = (top_k(one, np.arange(300), 5).items for one in (points, scorer))
    by_hand = [len({*best} & {*mine}) / 5 for best, mine in zip(exact, found, strict=True)]
    assert measured == pytest.approx(np.mean(by_hand))
    assert measured < 0.9


def test_the_recall_is_measured_on_other_users_than_it_was_chosen_on(model, monkeypatch):
    chosen, measured = [], []
    least, measure = approximate._least_probed, ItemIndex.measure
    monkeypatch.setattr(approximate, "SAMPLE", 150)

    def choosing(of, queries, *more):
        chosen.append(queries)
        return least(of, queries, *more)

    def measuring(of, queries, rows, *more, **options):
        measured.append(rows)
        return measure(of, queries, rows, *more, **options)

    monkeypatch.setattr(approximate, "_least_probed", choosing)
    monkeypatch.setattr(ItemIndex, "measure", measuring)
    made = ItemIndex.build(model, 0.8, k=5)
    assert made.figures.n_users == 150 == len(measured[0]) == len(chosen[0])
    others = model.user_vectors[measured[0]]
    assert not (chosen[0][:, None] == others[None]).all(axis=2).any()


def test_seed_and_nothing_else_changes_an_index(model, index, tmp_path):
    again = ItemIndex.build(model, 0.8, k=5, threads=1)
    other = ItemIndex.build(model, 0.8, k=5, seed=1)
    for name, one in {"first": index, "again": again, "other": other}.items():
        one._lists.write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "other").read_bytes()
    assert index.figures == again.figures


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_tiny_catalogues_have_an_index_too(n, monkeypatch):
    monkeypatch.setattr(Problem, "check_negatives", lambda _: None)  # one item has no negative
    data = nf.Interactions.from_pairs(
        [(u, i) for u in range(n) for i in range(n) if u != i or n < 2]
    )
    model = nf.CML(PLAIN, dim=2).fit(data, epochs=1)
    index = ItemIndex.build(model)
    assert 0 <= index.recall <= 1
    assert len(model.recommend_all(k=3, exclude_seen=False, index=index)) == n * min(n, 3)


def test_repr_shows_what_was_measured(index):
    of = index.figures
    assert repr(index) == (
        f"ItemIndex(300 items, recall {index.recall:.4f} at 5 of 200 users,"
        f" {of.n_probed} of 17 lists)"
    )
    assert (index.k, index.n_items, index.exact) == (5, 300, False)


# ---------------------------------------------------------------------------------- on disk


def test_save_and_load_give_the_same_lists(model, index, tmp_path):
    index.save(tmp_path / "index")
    model.save(tmp_path / "model")
    for of in (model, nf.CML.load(tmp_path / "model")):
        loaded = ItemIndex.load(tmp_path / "index", of)
        assert loaded.figures == index.figures
        assert of.recommend_all(index=loaded).equals(model.recommend_all(index=index))
        mine, others = (
            m.similar_items(range(300), index=i) for m, i in ((model, index), (of, loaded))
        )
        assert mine.equals(others)
    index.save(tmp_path / "index")
    assert len(list((tmp_path / "index").iterdir())) == 2
    assert of.recommend(3, index=loaded).equals(model.recommend(3, index=index))  # still mapped


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_lists_are_mapped_and_not_read(index, model, tmp_path):
    index.save(tmp_path)
    (file,) = tmp_path.glob("lists-*.faiss")
    kept = ItemIndex.load(tmp_path, model)
    assert file.name in Path("/proc/self/maps").read_text()
    assert kept.n_items == 300


def test_the_index_of_another_model_is_refused(model, index, tmp_path):
    other = nf.CML(PLAIN, dim=8).fit(model.interactions, epochs=1, seed=9)
    index.save(tmp_path)
    with pytest.raises(StoreError, match=r"index of another model.*make it again with `nearfar in"):
        ItemIndex.load(tmp_path, other)
    for ask in (other.recommend, other.similar_items):
        with pytest.raises(OptionError, match=r"`index` is of 300 other item vectors than the mod"):
            ask(3, index=index)


def test_damage_and_other_folders_are_refused(model, index, tmp_path):
    index.save(tmp_path / "i")
    (file,) = (tmp_path / "i").glob("*.faiss")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"was changed after it was written"):
        ItemIndex.load(tmp_path / "i", model)
    model.save(tmp_path / "m")
    with pytest.raises(StoreError, match="holds a nearfar model, not a"):
        ItemIndex.load(tmp_path / "m", model)
    with pytest.raises(StoreError, match="holds a nearfar model"):
        index.save(tmp_path / "m")
    store.save_folder(tmp_path / "x", kind="index", meta={"figures": {}})
    with pytest.raises(StoreError, match=r"x' is not a readable index"):
        ItemIndex.load(tmp_path / "x", model)


def test_a_file_that_is_not_faiss_s_is_refused(model, index, tmp_path):
    index.save(tmp_path)
    meta = json.loads((tmp_path / store.MANIFEST).read_text())["meta"]
    wrong = {"lists": lambda path: path.write_bytes(b"not an index at all")}
    store.save_folder(tmp_path, kind="index", meta=meta, files=wrong)
    with pytest.raises(StoreError, match=r"not readable by this version of faiss .*make the index"):
        ItemIndex.load(tmp_path, model)
    flat = faiss.IndexFlatL2(8)
    wrong = {"lists": lambda path: faiss.write_index(flat, str(path))}
    store.save_folder(tmp_path, kind="index", meta=meta, files=wrong)
    with pytest.raises(StoreError, match=r"holds no lists of 300 items in 8 dimensions"):
        ItemIndex.load(tmp_path, model)


def test_a_full_disk_leaves_nothing(index, tmp_path, monkeypatch):
    def full(lists, path):
        raise RuntimeError("Error in write: No space left on device\nmore")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(
        StoreError, match=r"faiss could not write the lists \(.*No space left on de"
    ):
        index.save(tmp_path / "index")
    assert not list((tmp_path / "index").iterdir())


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0}, r"`recall` must be a finite number above 0 and at most 1; got 0\."),
        ({"recall": 1.01}, r"`recall` must be a finite number above 0 and at most 1; got 1\.01\."),
        (
            {"recall": float("nan")},
            r"`recall` must be a finite number above 0 and .*; got nan\.",
        ),
        ({"k": 0}, r"`k` must be a whole number of at least 1; got 0\."),
        ({"threads": 0}, r"`threads` must be a whole number from 1"),
    ],
)
def test_wrong_options_are_named(model, options, message):
    with pytest.raises(OptionError, match=message):
        ItemIndex.build(model, **options)


def test_what_cannot_be_used_is_said(model, index):
    with pytest.raises(NotFittedError, match="has not been fitted"):
        ItemIndex.build(nf.CML())
    with pytest.raises(DataError, match="must be tables of the same width"):
        index.scorer(np.zeros((2, 3), np.float32))
    with pytest.raises(OptionError, match=r"`threads` must be a whole number from 1"):
        index.scorer(model.user_vectors, threads=0)
    pytest.importorskip("torch")
    for ask in (model.recommend, model.similar_items):
        with pytest.raises(OptionError, match=r"`index` searches on the CPU; got device='to"):
            ask(3, device="torch:cpu", index=index)


def test_a_missing_faiss_is_named_with_its_remedy(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"faiss, which is not inst.*nearfar\[ann\]"):
        ItemIndex.build(model)
    assert isinstance(model.recommend(3), pl.DataFrame)

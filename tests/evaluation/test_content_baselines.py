"""Baselines for content: a cosine by hand, a factorisation at its optimum, and real articles."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

import nearfar as nf
from conftest import random_data
from films import DATA, features
from nearfar.errors import OptionError
from nearfar.evaluation.baselines import MostPopular
from nearfar.evaluation.content_baselines import ContentCosine, ContentRidge, _solved, rows_of

SHARED = Path(__file__).parents[2] / "../shared/data"


def scores(recommender):
    out = np.empty((recommender.n_users, recommender.n_items), np.float32)
    recommender.score_block(np.arange(recommender.n_users, dtype=np.int32), 0, out)
    return out


def test_the_cosine_is_that_of_the_formula():
    rows = rows_of(DATA, features(0, 40)).toarray().astype(float)
    profile = DATA.to_csr().toarray() @ rows
    profile /= np.linalg.norm(profile, axis=1, keepdims=True)
    found = scores(ContentCosine(DATA, features(0, 40)))
    np.testing.assert_allclose(found, profile @ rows.T, atol=1e-6)
    block = np.empty((2, 5), np.float32)
    ContentCosine(DATA, features(0, 40)).score_block(np.array([7, 3], np.int32), 32, block)
    np.testing.assert_array_equal(block, found[[7, 3], 32:37])


def test_least_squares_are_at_their_minimum():
    seen = sp.csr_array(random_data().to_csr().astype(float))
    rng = np.random.default_rng(0)
    others, a, r = rng.normal(size=(seen.shape[1], 4)), 0.1, 0.01

    def loss(row, u):
        liked = seen[[row]].toarray()[0] > 0
        own = ((1 - others[liked] @ u) ** 2).sum() + a * ((others @ u) ** 2).sum()
        return own + r * (liked.sum() + a * seen.shape[1]) * (u @ u)

    found = _solved(seen, others, a, r)
    for row in range(5):
        best = loss(row, found[row])
        for k in range(4):
            for eps in (1e-3, -1e-3):
                moved = found[row].copy()
                moved[k] += eps
                assert loss(row, moved) > best


@pytest.mark.parametrize("kind", [ContentCosine, ContentRidge])
def test_they_find_cold_items_and_popularity_does_not(kind):
    cold = nf.Interactions.from_pairs([(u, 38 + (u % 2)) for u in range(60)])
    test = cold.aligned(DATA.user_ids, DATA.item_ids)
    found = nf.evaluate(kind(DATA, features(0, 40)), DATA, test, k=5, candidates="cold")
    popular = nf.evaluate(MostPopular(DATA), DATA, test, k=5, candidates="cold")
    assert (found.n_users, found.candidates) == (60, "cold")
    assert found["recall"] > 0.95
    assert popular["recall"] == 0.0  # it knows nothing of cold items, and lists the first ones


def test_bad_arguments_are_named():
    with pytest.raises(OptionError, match="features"):
        ContentCosine(DATA, None)
    for name, value in {"dim": 0, "iterations": 0, "unobserved": 0.0, "ridge": -1.0}.items():
        with pytest.raises(OptionError, match=f"`{name}`"):
            ContentRidge(DATA, features(0, 40), **{name: value})


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:.*no training interactions")
@pytest.mark.skipif(not SHARED.exists(), reason="the real data are not here")
def test_the_cosine_of_articles_is_as_measured_elsewhere():
    """CiteULike-t, cold items among cold items: recall@20 .2815 and NDCG@20 .1641."""
    pairs = pl.read_parquet(SHARED / "citeulike-t.parquet")
    data = nf.Interactions.from_frame(pairs, user="user", item="item")
    words = sp.load_npz(SHARED / "citeulike-t-bow.npz")
    about = nf.Features.from_matrix(words, np.arange(words.shape[0]), weight="tf-idf")

    def part(*names):
        some = pairs.filter(pl.col("split_cold").is_in(names))
        made = nf.Interactions.from_frame(some, user="user", item="item")
        return made.aligned(data.user_ids, data.item_ids)

    train, known = part("train"), part("train", "cold_valid")
    found = nf.evaluate(
        ContentCosine(train, about), train, part("cold_test"), k=20, exclude=known,
        candidates="cold",
    )  # fmt: skip
    assert found["recall"] == pytest.approx(0.2815, abs=0.003)
    assert found["ndcg"] == pytest.approx(0.1641, abs=0.003)

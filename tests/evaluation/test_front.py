"""The front of a model, against one evaluation for each setting."""

import sys
from copy import copy

import numpy as np
import pytest

import nearfar as nf
from conftest import hopeless, random_data
from nearfar.errors import MissingExtraError, OptionError, StoreError
from nearfar.experiment.analysis import exposure
from nearfar.method.prior import Prior
from nearfar.search.neighbours import top_k

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8, prior=None)


@pytest.fixture(scope="module")
def fitted():
    train, test = nf.split.ratio(random_data(60, 93), test=0.3)
    return nf.CML(SHORT, prior=Prior(gamma=0.1)).fit(train, epochs=3, threads=1), train, test


def test_every_row_is_the_evaluation_at_that_setting(fitted):
    model, train, test = fitted
    found = nf.front(model, train, test, popularity=[0, 0.5, 2], k=7)
    assert found.frame["popularity"].to_list() == [0, 0.5, 2]
    assert found.frame["gamma"].to_list() == pytest.approx([0, 0.05, 0.2])
    for row, per_user in zip(found.frame.iter_rows(named=True), found.per_user, strict=True):
        scorer = model.scorer(popularity=row["popularity"])
        alone = nf.evaluate(scorer, train, test, k=7)
        assert {name: row[name] for name in alone.metrics} == alone.metrics
        assert row["ndcg_se"] == pytest.approx(alone.standard_error("ndcg"))
        assert per_user.equals(alone.per_user)
        assert sum(row[f"decile_{t}"] for t in range(1, 11)) == pytest.approx(1)
        lists = top_k(
            scorer, np.flatnonzero(test.user_counts), 7, exclude=(train.indptr, train.items)
        )
        shares = exposure(lists.items, train.item_counts)["recommendations"].to_list()
        assert [row[f"decile_{t}"] for t in range(1, 11)] == pytest.approx(shares)
    assert np.all(np.diff(found.frame["mmr"].to_numpy()) > 0)
    assert np.all(np.diff(found.frame["decile_1"].to_numpy()) > 0)
    assert str(found).startswith("top 7 of")


def test_the_weights_are_those_of_the_model_also_beside_other_interactions(fitted):
    model, train, test = fitted
    less, _ = nf.split.ratio(train, test=0.4)
    found = nf.front(model, less, test, popularity=[2], k=7)
    alone = nf.evaluate(model, less, test, k=7, popularity=2)
    assert found.frame.select(list(alone.metrics)).row(0, named=True) == alone.metrics


def test_a_setting_is_a_number_of_at_least_zero(fitted):
    for bad in (-1, "1", None, np.nan):
        with pytest.raises(OptionError, match="`popularity` must be a finite number"):
            nf.front(*fitted, popularity=[0, bad])
    with pytest.raises(OptionError, match="must have at least one setting; got an empty list"):
        nf.front(*fitted, popularity=[])


def test_a_model_without_a_prior_has_no_front(fitted):
    _, train, test = fitted
    plain = nf.CML(SHORT).fit(train, epochs=1, threads=1)
    with pytest.raises(OptionError, match="it has no popularity prior"):
        nf.front(plain, train, test)


def test_the_plot_has_the_figures_and_the_settings(fitted, tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    model, train, test = fitted
    found = nf.front(model, train, test, popularity=[0, 0.5, 2], k=7)
    drawn = []
    save = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda one, *a, **how: (drawn.append(one), save(one, *a, **how))
    )
    for name in ("f.png", "f.svg", "f.pdf"):
        found.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
        (axes,) = drawn.pop().axes
        x, y = axes.lines[0].get_data()
        assert x.tolist() == found.frame["mmr"].to_list()
        assert y == pytest.approx(100 * found.frame["ndcg"].to_numpy())
        (bars,) = axes.collections
        heights = [np.ptp(path.vertices[:, 1]) for path in bars.get_paths()]
        assert heights == pytest.approx(200 * found.frame["ndcg_se"].to_numpy())
        assert [(text.get_text(), text.xy) for text in axes.texts] == [
            (label, pytest.approx(at)) for label, *at in zip(["0", "0.5", "2"], x, y, strict=True)
        ]
        assert "MMR@7" in axes.get_xlabel()
    assert "MMR@7" in (tmp_path / "f.svg").read_text()


def test_a_plot_that_cannot_be_written_is_an_error_with_a_remedy(fitted, tmp_path, monkeypatch):
    found = nf.front(*fitted, popularity=[1], k=7)
    with pytest.raises(OptionError, match=r"`path` must end in one of .png, .svg, .pdf; got 'f.t"):
        found.plot("f.txt")
    with pytest.raises(StoreError, match="existing folder"):
        found.plot(tmp_path / "none" / "f.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install nearfar\[plot\]"):
        found.plot(tmp_path / "f.png")


def test_an_evaluation_is_at_the_setting_that_is_asked_for(fitted, tmp_path):
    model, train, test = fitted
    for dial in (0, 0.5, 2):
        found = nf.evaluate(model, train, test, k=7, popularity=dial)
        alone = nf.evaluate(model.scorer(popularity=dial), train, test, k=7)
        assert found.per_user.equals(alone.per_user)
        assert found.metrics == alone.metrics
        assert (found.popularity, alone.popularity) == (dial, None)
        assert str(found).startswith(f"top 7 of {found.n_users} users at popularity {dial:g}\n")
    own = nf.evaluate(model, train, test, k=7)
    assert own.metrics == nf.evaluate(model, train, test, k=7, popularity=1).metrics
    assert own.metrics["mmr"] < found.metrics["mmr"]
    kept = copy(model)
    kept.keep_evaluation(found)
    kept.save(tmp_path / "m")
    assert "(test: the best 7 at popularity 2)" in next((tmp_path / "m").glob("card*")).read_text()
    assert nf.CML.load(tmp_path / "m").metrics["test"]["popularity"] == 2


def test_new_users_are_evaluated_at_the_setting():
    known, given, test = nf.split.by_user(random_data(60, 93), test=0.3, given=0.5, seed=0)
    model = nf.CML(SHORT, prior=Prior(gamma=0.1)).fit(known, epochs=1, threads=1)
    how = {"new_users": "fold_in", "given": given, "k": 7}
    low, high = (nf.evaluate(model, known, test, popularity=x, **how) for x in (0, 5))
    assert low.n_folded_in > 0
    assert low["mmr"] < high["mmr"]


def test_a_recommender_without_a_dial_refuses_a_setting(fitted):
    _, train, test = fitted
    for one in (nf.baselines.MostPopular(train), fitted[0].scorer()):
        with pytest.raises(OptionError, match=r"`popularity` is 0.5, but a \w+ has no popularity"):
            nf.evaluate(one, train, test, popularity=0.5)

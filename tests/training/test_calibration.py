"""How gamma of the prior and lambda of the co-occurrence term are found."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import hopeless, random_data
from nearfar.engine import Problem
from nearfar.errors import StoreError
from nearfar.evaluation.front import Front
from nearfar.method.co_occurrence import DEFAULT_WEIGHT, WEIGHTS, CoOccurrence
from nearfar.method.prior import Prior, gamma_by_rule
from nearfar.runtime import store
from nearfar.search.item_item import Terms, near_items
from nearfar.training import calibration
from nearfar.training.calibration import by_rule, chosen, expected_gamma, gammas

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8, prior=Prior())


def test_without_a_validation_part_gamma_is_by_the_rule():
    data = random_data()
    model = nf.CML(SHORT).fit(data, epochs=1, threads=1)
    temperature = Problem(data, SHORT).triplet.temperature
    assert model.gamma == gamma_by_rule(nf.Shared(0.5), data.item_counts, temperature, 8) > 0


def test_with_a_validation_part_gamma_is_the_best_on_it(tmp_path):
    data = random_data(80, 60, share=0.25)
    train, validation = nf.split.ratio(data, test=0.2)
    model = nf.CML(SHORT).fit(train, epochs=4, validation=validation, k=10, threads=1)
    tried = gammas(by_rule(Problem(train, SHORT)))
    assert model.gamma in tried
    assert tried[-1] > 0.3
    scores = {}
    for gamma in tried:
        at = 0.0 if model.gamma == 0 else gamma / model.gamma
        scores[gamma] = nf.evaluate(model.scorer(popularity=at), train, validation, k=10)["ndcg"]
    assert scores[model.gamma] == pytest.approx(max(scores.values()), abs=1e-6)
    assert len(set(scores.values())) > 5
    table = model.calibration
    assert table["gamma"].to_list() == list(tried)
    assert table["popularity"].to_list() == [gamma / model.gamma for gamma in tried]
    assert table["ndcg"].to_list() == pytest.approx(list(scores.values()), abs=1e-6)
    assert table["mmr"].is_sorted()
    assert set(table["k"]) == {10}
    model.save(tmp_path / "m")
    assert nf.CML.load(tmp_path / "m").calibration.equals(table)
    card = next((tmp_path / "m").glob("card*")).read_text()
    (own,) = table.filter(popularity=1).iter_rows(named=True)
    assert "The best 10 on the validation part, on which gamma was chosen" in card
    assert f"| 1.00 | {model.gamma:g} | {own['map']:.4f} | {own['ndcg']:.4f} | " in card
    whole = store.load_folder(tmp_path / "m", kind="model")
    for bad in (table.drop("mmr"), table.cast({"ndcg": pl.String}), table.clear()):
        spoilt = {**whole.frames, "calibration": bad}
        store.save_folder(tmp_path / "x", kind="model", meta=whole.meta, arrays=whole.arrays,
                          frames=spoilt)  # fmt: skip
        with pytest.raises(StoreError, match=r"not a readable model: `calibration` must have num"):
            nf.CML.load(tmp_path / "x")
    more = nf.Interactions.from_pairs([(0, 1)])
    assert model.partial_fit(more, epochs=1, threads=1).calibration is None
    model.save(tmp_path / "m")
    assert nf.CML.load(tmp_path / "m").calibration is None


def test_a_given_gamma_is_kept_and_more_training_keeps_it():
    data = random_data()
    model = nf.CML(SHORT, prior=Prior(gamma=0.07)).fit(data, epochs=1, validation=0.2, threads=1)
    assert model.gamma == 0.07
    assert model.calibration is None
    more = nf.Interactions.from_pairs([(0, 1), (99, 2)])
    assert model.partial_fit(more, epochs=1, threads=1).gamma == 0.07


def front(values):
    """A front of three users whose NDCG is `values`, a list a setting."""
    frames = tuple(pl.DataFrame({"ndcg": list(map(float, each))}) for each in values)
    return Front(5, 3, pl.DataFrame({"ndcg": [frame["ndcg"].mean() for frame in frames]}), frames)


def test_the_smallest_gamma_within_one_error_of_the_best():
    # the differences to the best are (1, 1, 1), (2, 0, 0) and (0, 0, 0)
    found = front([(1, 2, 3), (0, 3, 4), (2, 3, 4)])
    assert chosen(found, [0.0, 0.1, 0.2], "ndcg") == 0.2
    assert chosen(found, [0.0, 0.1, 0.2], "ndcg", one_error=True) == 0.1


def test_one_user_has_no_error_so_the_best_gamma_is_chosen():
    assert chosen(front([(1,), (3,), (2,)]), [0.0, 0.1, 0.2], "ndcg", one_error=True) == 0.1


def test_a_run_that_ends_before_its_first_validation_is_not_calibrated_on_it():
    def leave(event):
        raise KeyboardInterrupt

    data, model = random_data(), nf.CML(SHORT)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, epochs=4, validation=0.2, every=3, callbacks=[leave], threads=1)
    learned, _ = nf.split.ratio(data, test=0.2, seed=0)
    temperature = Problem(learned, SHORT).triplet.temperature
    assert model.gamma == gamma_by_rule(nf.Shared(0.5), learned.item_counts, temperature, 8)
    assert model.gamma not in gammas(model.gamma)


def test_a_run_that_is_interrupted_while_it_is_calibrated_keeps_its_points(monkeypatch):
    def leave(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "at_gammas", leave)
    data, model = random_data(), nf.CML(SHORT)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, epochs=1, validation=0.2, threads=1)
    learned, _ = nf.split.ratio(data, test=0.2, seed=0)
    assert model.best_epoch == 1
    assert model.gamma == expected_gamma(Problem(learned, SHORT)) > 0
    assert model.calibration is None


def test_without_a_validation_part_lambda_is_the_usual_one():
    near = nf.CML(SHORT, neighbours=CoOccurrence(9)).fit(random_data(), epochs=1, threads=1)
    assert near.neighbour_weight == DEFAULT_WEIGHT
    assert near.gamma == nf.CML(SHORT).fit(random_data(), epochs=1, threads=1).gamma


@pytest.mark.parametrize("seed", [0, 1])
def test_lambda_is_the_best_on_a_validation_part_and_gamma_is_found_with_it(seed):
    train, validation = nf.split.ratio(random_data(80, 60, share=0.25), test=0.2, seed=seed)
    options = nf.CML(SHORT, neighbours=CoOccurrence(9))
    model = options.fit(train, epochs=4, validation=validation, k=10, threads=1)
    assert model.options.neighbours.weight is None
    own = (train.indptr, train.items)
    near = near_items(own, train.n_items, 9)
    np.testing.assert_array_equal(near.values, model.neighbours.values)
    rule = expected_gamma(Problem(train, model.options))
    points = model.scorer(popularity=rule / model.gamma)
    found = {
        weight: nf.evaluate(points.near(Terms(near, weight, own)), train, validation, k=10)["ndcg"]
        for weight in WEIGHTS
    }
    assert found[model.neighbour_weight] == max(found.values())
    assert len(set(found.values())) > 3
    (at,) = model.calibration.filter(popularity=1).iter_rows(named=True)
    assert at["ndcg"] == pytest.approx(nf.evaluate(model, train, validation, k=10)["ndcg"])
    assert at["ndcg"] == model.calibration["ndcg"].max()

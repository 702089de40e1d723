"""Lists of many users in parts: the same as the library's, whole or resumed, or refused."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.errors import (
    DataError,
    EmptyDataError,
    NearfarWarning,
    OptionError,
    StoreError,
    UnknownIdError,
)
from nearfar.model import batch
from nearfar.model.batch import Written, recommend_to


@pytest.fixture(scope="module")
def model():
    return nf.CML(PLAIN, dim=8).fit(random_data(), epochs=1)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """At k = 5, 7 users a part."""
    monkeypatch.setattr(batch, "PART_ROWS", 35)


def read(folder):
    return pl.read_parquet(folder / "part-*.parquet")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"users": [5, 3, 29, 4, 8, 9, 7, 1, 2]},
        {"exclude_seen": False, "threads": 2},
        {"allow": range(0, 60, 2), "deny": iter([4, 8])},
        {"device": "torch:cpu"},
    ],
)
def test_it_gives_the_library_s_lists(model, tmp_path, options):
    if "device" in options:
        pytest.importorskip("torch")
    given = {**options, **({"deny": [4, 8]} if "deny" in options else {})}
    done = recommend_to(tmp_path, model, k=5, **options)
    ask = model.recommend if "users" in given else model.recommend_all
    expected = ask(k=5, **given)
    n_users = len(options.get("users", range(30)))
    assert done == Written(n_users, -(-n_users // 7), -(-n_users // 7))
    assert read(tmp_path).drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(read(tmp_path)["score"], expected["score"], atol=1e-6)
    assert read(tmp_path).schema == expected.schema
    assert len(list(tmp_path.glob("part-*"))) == done.n_parts


def test_with_an_index_the_lists_are_the_index_s(model, tmp_path):
    pytest.importorskip("faiss")
    index = nf.ItemIndex.build(model, 0.5, k=5)
    recommend_to(tmp_path, model, k=5, index=index)
    assert read(tmp_path).equals(model.recommend_all(k=5, index=index))
    assert not read(tmp_path).equals(model.recommend_all(k=5))
    again = nf.ItemIndex.build(model, 0.5, k=5)
    assert recommend_to(tmp_path, model, k=5, index=again).n_made == 0
    for other in (None, nf.ItemIndex.build(model, 0.5, k=5, seed=1), nf.ItemIndex.build(model, 1)):
        with pytest.raises(StoreError, match=r"of other settings \(other index\); choose another"):
            recommend_to(tmp_path, model, k=5, index=other)


@pytest.mark.parametrize(
    ("name", "call"),
    [*(("fsync", call) for call in range(1, 9)), *(("replace", call) for call in range(1, 7))],
)
def test_a_run_that_was_killed_goes_on_to_the_same_files(model, tmp_path, monkeypatch, name, call):
    """It dies at each of its system calls in turn, and leaves whatever is there at that moment."""
    recommend_to(tmp_path / "whole", model, k=5)
    left, real = [call], getattr(batch.store.os, name)

    class Killed(BaseException):
        pass

    def dying(*args):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(batch.store.os, name, dying)
        with pytest.raises(Killed):
            recommend_to(tmp_path / "killed", model, k=5)
    (tmp_path / "killed" / f".nearfar-{'0' * 32}.tmp").write_text("of one killed outright")
    there = len(list((tmp_path / "killed").glob("part-*")))
    done = recommend_to(tmp_path / "killed", model, k=5, threads=2)
    assert done == Written(30, 5, 5 - there)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_only_missing_parts_are_made(model, tmp_path, monkeypatch):
    recommend_to(tmp_path, model, k=5)
    before = contents(tmp_path)
    (tmp_path / "part-00003.parquet").unlink()
    asked, recommend = [], nf.CML.recommend

    def counting(self, users, *more, **options):
        asked.append(users.to_list())
        return recommend(self, users, *more, **options)

    monkeypatch.setattr(nf.CML, "recommend", counting)
    assert recommend_to(tmp_path, model, k=5) == Written(30, 5, 1)
    assert asked == [list(range(21, 28))]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": 6}, "k, part_users"),
        ({"users": [1, 2]}, "users"),
        ({"exclude_seen": False}, "exclude_seen"),
        ({"allow": [1]}, "allow"),
        ({"deny": [1]}, "deny"),
    ],
)
def test_a_folder_of_other_settings_is_refused(model, tmp_path, change, named):
    recommend_to(tmp_path, model, k=5)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=rf"of other settings \(other {named}\); choose another"):
        recommend_to(tmp_path, model, **{"k": 5, **change})
    assert contents(tmp_path) == before


def test_another_model_and_other_folders_are_refused(model, tmp_path):
    recommend_to(tmp_path / "lists", model, k=5)
    other = nf.CML(PLAIN, dim=8).fit(random_data(), epochs=1, seed=1)
    with pytest.raises(StoreError, match=r"of other settings \(other model\)"):
        recommend_to(tmp_path / "lists", other, k=5)
    model.save(tmp_path / "model")
    with pytest.raises(StoreError, match="holds a nearfar model, not a batch"):
        recommend_to(tmp_path / "model", model, k=5)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "part-00000.parquet").write_text("mine")
    with pytest.raises(StoreError, match="not empty and not a nearfar folder"):
        recommend_to(tmp_path / "thesis", model, k=5)
    assert (tmp_path / "thesis" / "part-00000.parquet").read_text() == "mine"


def test_wrong_questions_are_refused_before_anything_is_written(model, tmp_path):
    for error, options, message in [
        (EmptyDataError, {"users": []}, "There are no users to recommend to"),
        (UnknownIdError, {"users": [1, 99]}, "99"),
        (OptionError, {"k": 0}, r"`k` must be a whole number of at least 1; got 0\."),
    ]:
        with pytest.raises(error, match=message):
            recommend_to(tmp_path / "lists", model, **options)
    assert not (tmp_path / "lists").exists()


def test_users_that_the_model_does_not_know_are_skipped_if_wanted(model, tmp_path):
    asked = [5, 99, 3, "5", None, 8]
    done = recommend_to(tmp_path, model, asked, k=5, unknown="skip")
    assert done == Written(3, 1, 1, n_skipped=3)
    assert read(tmp_path).equals(model.recommend([5, 3, 8], k=5))
    assert recommend_to(tmp_path, model, [5, 3, 8], k=5).n_made == 0  # the same lists
    with pytest.raises(EmptyDataError, match=r"the model knows none of 98, 99\."):
        recommend_to(tmp_path / "none", model, [98, 99], unknown="skip")
    with pytest.raises(UnknownIdError, match=r"3 of them.*: 99, '5', None"):
        recommend_to(tmp_path / "none", model, asked)
    with pytest.raises(OptionError, match="`unknown` must be one of error, skip; got 'ignore'"):
        recommend_to(tmp_path / "none", model, asked, unknown="ignore")
    for single in ("5", 5):
        with pytest.raises(DataError, match="`users` must be a list of ids"):
            recommend_to(tmp_path / "none", model, single)
    assert not (tmp_path / "none").exists()


def test_users_without_training_interactions_are_counted(tmp_path):
    data = random_data()
    train = data.subset(~np.isin(data.pair_users(), [0, 4]))
    model = nf.CML(PLAIN, dim=8).fit(train, epochs=1)
    assert recommend_to(tmp_path / "all", model, k=5) == Written(28, 4, 4, n_skipped=2)
    assert not {0, 4} & set(read(tmp_path / "all")["user_id"])
    with pytest.raises(UnknownIdError, match="no training interactions of user id 4"):
        recommend_to(tmp_path / "some", model, [3, 4], k=5)
    done = recommend_to(tmp_path / "some", model, [3, 4], k=5, unknown="skip")
    assert done == Written(1, 1, 1, n_skipped=1)


def test_unknown_ids_of_filters_are_ignored_and_named_once(model, tmp_path):
    with pytest.warns(NearfarWarning, match=r"2 of the 3 ids in `deny`.*: 777, 888\.$") as said:
        recommend_to(tmp_path, model, k=5, deny=[777, 4, 888])
    assert len(said) == 1  # and not one for each of the parts
    assert read(tmp_path).equals(model.recommend_all(k=5, deny=[4]))


def test_users_with_nothing_left(tmp_path):
    pairs = [(f"u{u}", f"i{i}") for u in range(9) for i in range(4) if u == 0 or u % 4 == i]
    model = nf.CML(PLAIN, dim=2).fit(nf.Interactions.from_pairs(pairs), epochs=1)
    recommend_to(tmp_path, model, ["u0"], k=50)
    assert read(tmp_path).columns == ["user_id", "rank", "item_id", "score"]
    assert len(read(tmp_path)) == 0
    recommend_to(tmp_path / "all", model, k=2)
    expected = model.recommend_all(k=2)
    for name in ("user_id", "item_id"):
        assert read(tmp_path / "all")[name].to_list() == expected[name].to_list()


def test_progress_counts_users_also_those_that_were_there(model, tmp_path, monkeypatch):
    for _ in range(2):
        seen = []
        monkeypatch.setattr(batch.Stages, "advance", lambda self, n, seen=seen: seen.append(n))
        recommend_to(tmp_path, model, k=5)
        assert seen == [7, 7, 7, 7, 2]

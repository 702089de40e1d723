import json
import warnings
from math import log, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.data.feature_space import FeatureSpace
from nearfar.data.features import Features
from nearfar.data.ids import Ids
from nearfar.errors import DataError, NearfarWarning, OptionError, StoreError
from nearfar.runtime import store

SHARED = Path(__file__).parents[3] / "shared" / "data"
FILMS = pl.DataFrame({
    "item_id": [1, 2, 3, 4, 6],
    "genres": [["war"], ["war", "drama"], [], ["love"], ["war"]],
    "plot": ["the war the end", "the end", None, "end of love", None],
    "year": [1950.0, 1970.0, None, 2020.0, None],
    "image": [[1.0, 0.0], [3.0, 4.0], None, [0.0, 9.0], [2.0, 2.0]],
})  # fmt: skip
HOW = {"categories": "genres", "text": "plot", "numbers": "year", "vectors": "image"}
AXIS = Ids([1, 2, 3, 4, 5], "item")
KNOWN = np.array([True, True, False, False, False])


def films(**how):
    return Features.from_frame(FILMS, **(how or HOW))


def dense(features, known=KNOWN, ids=AXIS, **gains):
    """The matrix, and the place of each column by its name."""
    space = FeatureSpace.fit(features, ids, known, gains)
    names = {name: i for i, name in enumerate(space.column_names())}
    return space.encode(features, ids).matrix.toarray(), names


def test_text_is_weighted_by_tf_idf():
    rows, names = dense(films(text="plot"))
    assert list(names) == ["plot: end", "plot: the", "plot: war"]  # not "of", "love": unknown
    idf = {"end": log(3 / 3) + 1, "the": log(3 / 3) + 1, "war": log(3 / 2) + 1}
    first = np.array([idf["end"], (1 + log(2)) * idf["the"], idf["war"]])
    np.testing.assert_allclose(rows[0], first / np.linalg.norm(first), rtol=1e-6)
    np.testing.assert_allclose(rows[1], [sqrt(0.5), sqrt(0.5), 0], rtol=1e-6)
    np.testing.assert_allclose(rows[3], [1, 0, 0], rtol=1e-6)
    assert not rows[[2, 4]].any()


def test_a_category_that_every_item_has_weighs_less():
    rows, names = dense(films(categories="genres"))
    assert list(names) == ["genres=drama", "genres=war"]
    wanted = np.array([log(3 / 2) + 1, 1])
    np.testing.assert_allclose(rows[1], wanted / np.linalg.norm(wanted), rtol=1e-6)
    np.testing.assert_allclose(rows[0], [0, 1])


def test_numbers_are_standardised_and_bounded():
    rows, names = dense(films(numbers="year"))
    assert list(names) == ["year", "year is known"]
    for row, z in ((0, -1), (1, 1), (3, 6)):  # mean 1960, deviation 10
        np.testing.assert_allclose(rows[row], np.array([z, 1]) / sqrt(1 + z * z), rtol=1e-6)
    assert not rows[2].any()


def test_vectors_are_centred():
    rows, names = dense(films(vectors="image"))
    assert list(names) == ["image[0]", "image[1]"]
    for row, value in ((0, [-1, -2]), (1, [1, 2]), (3, [-2, 7])):  # the mean is (2, 2)
        np.testing.assert_allclose(rows[row], value / np.linalg.norm(value), rtol=1e-6)


def test_a_vector_that_is_the_mean_is_no_feature():
    features = films(vectors="image")
    space = FeatureSpace.fit(features, AXIS, KNOWN)
    assert space.encode(features).missing.tolist() == [False, False, True, False, True]


def test_fields_are_brought_to_their_gains_and_rows_to_length_1():
    features = films()
    gains = {"genres": 2.0, "plot": 0.5}
    rows, _ = dense(features, **gains)
    space = FeatureSpace.fit(features, AXIS, KNOWN, gains)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1, 0], atol=1e-6)
    lengths = {f.name: np.linalg.norm(rows[:, f.columns], axis=1) for f in space.fields}
    total = sqrt(4 + 0.25 + 1 + 1)
    assert lengths["genres"][0] == pytest.approx(2 / total, rel=1e-6)
    assert lengths["plot"][0] == pytest.approx(0.5 / total, rel=1e-6)
    assert lengths["image"][0] == pytest.approx(1 / total, rel=1e-6)
    assert lengths["plot"][3] == pytest.approx(0.5 / sqrt(0.25 + 1 + 1), rel=1e-6)
    for name, length in lengths.items():
        alone, _ = dense(films(**{kind: one for kind, one in HOW.items() if one == name}))
        part = rows[0, next(f.columns for f in space.fields if f.name == name)]
        np.testing.assert_allclose(part / length[0], alone[0], rtol=1e-5)


def test_the_result_has_the_form_that_training_needs():
    features = films()
    space = FeatureSpace.fit(features, AXIS, KNOWN)
    matrix, missing, unknown = space.encode(features, AXIS)
    assert isinstance(matrix, sp.csr_array)
    assert (matrix.dtype, matrix.indices.dtype, matrix.indptr.dtype) == ("f4", "i4", "i4")
    assert matrix.has_sorted_indices
    assert matrix.shape == (5, space.n_columns) == (5, len(space.column_names()))
    assert missing.tolist() == [False, False, True, False, True]
    assert unknown == {"genres": 1, "plot": 2, "year": 0, "image": 0}
    assert [f.kind for f in space.fields] == ["categories", "text", "numbers", "vectors"]
    assert [f.columns for f in space.fields] == [slice(0, 2), slice(2, 5), slice(5, 7),
                                                 slice(7, 9)]  # fmt: skip
    assert repr(space) == "FeatureSpace(9 columns: genres (2), plot (3), year (2), image (2))"


def test_what_other_items_have_changes_nothing():
    rows, names = dense(films())
    changed = FILMS.with_columns(
        plot=pl.when(pl.col("item_id") > 2).then(pl.lit("zzz the end")).otherwise("plot"),
        year=pl.when(pl.col("item_id") > 2).then(1e300).otherwise("year"),
    )
    others, same_names = dense(Features.from_frame(changed, **HOW))
    assert names == same_names
    np.testing.assert_array_equal(rows[:2], others[:2])
    assert np.isfinite(others).all()
    assert others[3, names["year"]] > 0


def test_new_items_are_encoded_with_what_was_learned():
    features = films()
    space = FeatureSpace.fit(features, AXIS, KNOWN)
    new = FILMS.filter(pl.col("item_id").is_in([2, 4])).with_columns(pl.col("item_id") + 100)
    matrix, missing, unknown = space.encode(Features.from_frame(new, **HOW))
    np.testing.assert_array_equal(
        matrix.toarray(), space.encode(features, AXIS).matrix.toarray()[[1, 3]]
    )
    assert not missing.any()
    assert unknown == {"genres": 1, "plot": 2, "year": 0, "image": 0}
    nothing = space.encode(Features.from_frame(new, **HOW), AXIS)
    assert nothing.missing.all()
    assert nothing.unknown == dict.fromkeys(unknown, 0)


def test_large_numbers_stay_finite():
    frame = pl.DataFrame({"id": [1, 2, 3], "n": [1e308, -1e308, 1e-300]})
    rows, _ = dense(Features.from_frame(frame, numbers="n"), np.ones(3, bool), Ids([1, 2, 3]))
    assert np.isfinite(rows).all()
    assert rows[0, 0] > 0 > rows[1, 0]


# ------------------------------------------------------------------------------------ matrices

COUNTS = sp.csr_array(np.array([[2, 0, 1], [1, 0, 0], [0, 3, 0]]))


def test_a_matrix_of_counts_is_weighted_as_text_is():
    frame = pl.DataFrame({"id": [1, 2, 3], "t": ["aa aa cc", "aa", "bb bb bb"]})
    known = np.array([True, True, False])
    text, _ = dense(Features.from_frame(frame, text="t"), known, Ids([1, 2, 3]))
    matrix = Features.from_matrix(COUNTS, [1, 2, 3], weight="tf-idf")
    rows, names = dense(matrix, known, Ids([1, 2, 3]))
    assert list(names) == ["features: 0", "features: 2"]
    np.testing.assert_array_equal(rows, text)


def test_a_matrix_without_weight_keeps_its_values():
    rows, _ = dense(Features.from_matrix(-COUNTS, [1, 2, 3]), np.ones(3, bool), Ids([1, 2, 3]))
    np.testing.assert_allclose(rows[0], -np.array([2, 0, 1]) / sqrt(5), rtol=1e-6)


def test_a_dense_matrix_can_be_centred():
    values = np.array([[1.0, 0], [3, 4], [0, 9]], np.float32)
    rows, _ = dense(Features.from_matrix(values, [1, 2, 4], weight="centre"))
    vectors, _ = dense(films(vectors="image"))
    np.testing.assert_array_equal(rows, vectors)


def test_matrices_are_matched_by_name_or_by_position():
    known, ids = np.array([True, True, False]), Ids([1, 2, 3])
    named = Features.from_matrix(COUNTS, [1, 2, 3], columns=["x", "y", "z"])
    space = FeatureSpace.fit(named, ids, known)
    other = Features.from_matrix([[5, 1, 2]], [9], columns=["new", "z", "x"])
    matrix, _, unknown = space.encode(other)
    np.testing.assert_allclose(matrix.toarray(), np.array([[2, 1]]) / sqrt(5), rtol=1e-6)
    assert matrix.has_sorted_indices
    assert unknown == {"features": 1}
    assert space.column_names() == ["features: x", "features: z"]
    swapped = Features.from_matrix([[1, 2], [3, 4]], [8, 9], columns=["z", "x"])
    first = space.encode(swapped).matrix.toarray()  # the columns of `swapped` stay as they are
    np.testing.assert_allclose(first[0], np.array([2, 1]) / sqrt(5), rtol=1e-6)
    np.testing.assert_array_equal(space.encode(swapped).matrix.toarray(), first)
    bare = Features.from_matrix(COUNTS, [1, 2, 3])
    with pytest.raises(DataError, match="'features': the matrix lacks names of its columns"):
        space.encode(bare)
    numbered = FeatureSpace.fit(bare, ids, known)
    with pytest.raises(DataError, match="'features': the matrix has names of its columns"):
        numbered.encode(named)
    with pytest.raises(DataError, match=r"must have 3 columns.*it has 2"):
        numbered.encode(Features.from_matrix([[1, 1]], [1]))
    with pytest.raises(DataError, match="has `weight='tf-idf'`"):
        numbered.encode(Features.from_matrix(COUNTS, [1, 2, 3], weight="tf-idf"))


# ------------------------------------------------------------------------------------ refusals


def test_few_items_with_features_are_told_with_their_number():
    axis = Ids(range(1, 12), "item")
    known = np.ones(11, bool)
    with pytest.warns(NearfarWarning, match="only 4 of the 11 item ids with training pairs have"):
        FeatureSpace.fit(films(), axis, known)
    known[5:] = False
    known[[2, 4]] = False  # 3 has a row without values
    FeatureSpace.fit(films(), axis, known)


def test_items_without_any_features_are_refused():
    text = Features.from_frame(FILMS.with_columns(pl.col("item_id").cast(pl.String)), **HOW)
    with pytest.raises(DataError, match=r"strings \(String\), such as '1',.*integers \(Int64\)"):
        FeatureSpace.fit(text, AXIS, KNOWN)
    space = FeatureSpace.fit(films(), AXIS, KNOWN)
    with pytest.raises(DataError, match="They must be of the same kind; convert one of the two"):
        space.encode(text, AXIS)
    with pytest.raises(DataError, match="None of the 2 item ids with training pairs has features"):
        FeatureSpace.fit(films(), Ids([50, 60], "item"), np.ones(2, bool))
    with pytest.raises(DataError, match="None of the 0 item ids"):
        FeatureSpace.fit(films(), AXIS, ~KNOWN & KNOWN)


def test_a_field_that_says_nothing_is_left_out_with_a_warning():
    frame = FILMS.with_columns(one=pl.lit(3.0), same=[0.1, 0.2], none=pl.lit(""))
    features = Features.from_frame(frame, categories="genres", numbers="one", vectors="same",
                                   text="none")  # fmt: skip
    with pytest.warns(NearfarWarning) as told:
        space = FeatureSpace.fit(features, AXIS, KNOWN)
    assert [str(one.message).split(" is left out")[0] for one in told] == [
        "the field 'none'", "the field 'one'", "the field 'same'"
    ]  # fmt: skip
    rows = space.encode(features, AXIS).matrix.toarray()
    np.testing.assert_array_equal(rows, dense(films(categories="genres"))[0])
    again = FeatureSpace.from_store(*space.to_store())
    np.testing.assert_array_equal(again.encode(features, AXIS).matrix.toarray(), rows)
    with pytest.raises(DataError, match="Nothing can be learned from the features one"):
        FeatureSpace.fit(Features.from_frame(frame, numbers="one"), AXIS, KNOWN)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"gains": {"plto": 1.0}}, "`gains` must name fields, which are genres.*'plto'"),
        ({"gains": {"plot": 0}}, r"`gains\['plot'\]` must be a positive number; got 0"),
        ({"gains": {"plot": float("inf")}}, "must be a positive number"),
        ({"gains": [1.0]}, "`gains` must be of type Mapping"),
        ({"known": [True]}, "`known` must be bool, one for each of 5 ids"),
        ({"known": [1, 1, 0, 0, 0]}, "`known` must be bool"),
        ({"ids": [1, 2]}, "`ids` must be of type Ids"),
        ({"features": FILMS}, "`features` must be of type Features.*Features.from_frame"),
    ],
)
def test_arguments_are_checked(how, message):
    with pytest.raises(OptionError, match=message):
        FeatureSpace.fit(**{"features": films(), "ids": AXIS, "known": KNOWN, **how})


def test_other_fields_than_those_fitted_are_refused():
    space = FeatureSpace.fit(films(), AXIS, KNOWN)
    with pytest.raises(DataError, match="genres, plot, year, image; these lack 'image'"):
        space.encode(films(categories="genres", text="plot", numbers="year"))
    extra = films().joined(Features.from_matrix([[1]], [1], name="tags"))
    with pytest.raises(DataError, match="these have 'tags' as well"):
        space.encode(extra)
    with pytest.raises(DataError, match=r"'genres' must be categories.*it is text"):
        space.encode(films(text=["genres", "plot"], numbers="year", vectors="image"))
    wide = FILMS.with_columns(image=pl.Series([[1.0, 2, 3]] * 5))
    with pytest.raises(DataError, match=r"Field 'image': the vectors must have 2 numbers.*have 3"):
        space.encode(Features.from_frame(wide, **HOW))
    with pytest.raises(OptionError, match="`features` must be of type Features"):
        space.encode(FILMS)


# ------------------------------------------------------------------------------------ on disk


def spaces():
    tags = Features.from_matrix(COUNTS, [1, 2, 3], name="tags")
    named = Features.from_matrix(COUNTS, [1, 2, 3], name="named", columns=["ä", "y", "z"],
                                 weight="tf-idf")  # fmt: skip
    features = films().joined(tags, named)
    return features, FeatureSpace.fit(features, AXIS, KNOWN, {"plot": 0.1})


def test_a_saved_space_encodes_to_the_same_bits(tmp_path):
    features, space = spaces()
    meta, frames = space.to_store()
    store.save_folder(tmp_path / "space", kind="space", meta=meta, frames=frames)
    found = store.load_folder(tmp_path / "space", kind="space")
    again = FeatureSpace.from_store(found.meta, found.frames)
    one, other = space.encode(features, AXIS), again.encode(features, AXIS)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.matrix, part), getattr(other.matrix, part))
    assert one.unknown == other.unknown
    assert again.column_names() == space.column_names()
    assert again.fields == space.fields
    assert json.dumps(again.to_store()[0]) == json.dumps(meta)
    assert {name: frame.rows() for name, frame in again.to_store()[1].items()} == {
        name: frame.rows() for name, frame in frames.items()
    }


SPOIL = [
    lambda meta, frames: meta.pop("fields"),
    lambda meta, frames: meta.update(n_columns=3),
    lambda meta, frames: meta["fields"].pop(),
    lambda meta, frames: meta["fields"][0].update(gain=-1.0),
    lambda meta, frames: meta["fields"][0].update(kind="colours"),
    lambda meta, frames: meta["fields"][0].update(name="plot"),
    lambda meta, frames: meta["fields"][0].update(weighted="yes"),
    lambda meta, frames: meta["fields"][0].update(n=1),
    lambda meta, frames: meta["fields"][0].pop("n"),
    lambda meta, frames: meta["fields"][2].update(mean=float("nan")),
    lambda meta, frames: meta["fields"][2].update(deviation=-1.0),
    lambda meta, frames: meta["fields"][3].update(scale=float("inf")),
    lambda meta, frames: frames.pop("field_0"),
    lambda meta, frames: frames.update(field_1=frames["field_1"].drop("term")),
    lambda meta, frames: frames.update(field_1=pl.concat([frames["field_1"]] * 2)),
    lambda meta, frames: frames.update(field_1=frames["field_1"].with_columns(frequency=0.5)),
    lambda meta, frames: frames.update(field_3=pl.DataFrame({"mean": [1.0]})),
    lambda meta, frames: frames.update(field_3=pl.DataFrame({"mean": [1.0, None]})),
    lambda meta, frames: frames.update(field_3=pl.DataFrame({"mean": ["a", "b"]})),
]


@pytest.mark.parametrize("spoil", SPOIL)
def test_an_inconsistent_store_is_refused(spoil):
    meta, frames = spaces()[1].to_store()
    spoil(meta, frames)
    with pytest.raises(StoreError, match="The saved features are not readable"):
        FeatureSpace.from_store(meta, frames)


# ------------------------------------------------------------------------------------ at large


ROW = st.fixed_dictionaries({
    "c": st.lists(st.sampled_from("abcd"), max_size=3),
    "t": st.one_of(st.none(), st.text("ab c", max_size=12)),
    "n": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    "v": st.one_of(st.none(), st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2)),
})  # fmt: skip


@settings(max_examples=60)
@given(rows=st.lists(ROW, min_size=1, max_size=8), data=st.data())
def test_rows_have_length_1_or_nothing_whatever_the_values(rows, data):
    known = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    schema = {"c": pl.List(pl.String), "t": pl.String, "n": pl.Float64, "v": pl.List(pl.Float64)}
    table = pl.DataFrame(rows, schema=schema)
    kinds = {"categories": "c", "text": "t", "numbers": "n"}
    if table["v"].null_count() < table.height:
        kinds["vectors"] = "v"
    frame = table.with_columns(id=pl.int_range(table.height))
    features = Features.from_frame(frame, **kinds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)
        try:
            space = FeatureSpace.fit(features, features.ids, known)
        except DataError:
            return
    matrix, missing, _ = space.encode(features)
    lengths = np.linalg.norm(matrix.toarray().astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, ~missing, atol=1e-5)
    chosen = np.flatnonzero(known)
    one_by_one = space.encode(features, features.ids.subset(chosen)).matrix.toarray()
    np.testing.assert_array_equal(one_by_one, matrix.toarray()[chosen])


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_words_of_citeulike_are_those_of_tf_idf():
    counts = sp.load_npz(SHARED / "citeulike-t-bow.npz")
    n = counts.shape[0]
    features = Features.from_matrix(counts, range(n), weight="tf-idf")
    matrix, missing, unknown = FeatureSpace.fit(features, features.ids, np.ones(n, bool)).encode(
        features
    )
    assert missing.sum() == 31
    assert unknown == {"features": 0}
    df = np.bincount(sp.csr_array(counts).indices, minlength=counts.shape[1])
    weighted = sp.csr_array(counts).astype(float)
    weighted.data = 1 + np.log(weighted.data)
    weighted = weighted.multiply(np.log((1 + n - 31) / (1 + df)) + 1).tocsr()[:, df > 0]
    lengths = sp.linalg.norm(weighted, axis=1)
    found = matrix.multiply(weighted).sum(axis=1) / np.maximum(lengths, 1)
    np.testing.assert_allclose(found, ~missing, atol=1e-5)

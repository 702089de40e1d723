"""Models that several ranks train and save together, of which none has all points."""

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import hopeless, plain, random_data
from nearfar.errors import StoreError
from nearfar.runtime import store
from nearfar.serve.loaded import Loaded
from ranks import joined_ranks

pytestmark = hopeless
DATA = random_data(600, 530, 0.01, seed=3)
DIM = 64
"""So that 256 rows fill whole pages, and both tables lie in several files."""


@pytest.fixture
def ranks(monkeypatch):
    return joined_ranks(monkeypatch)


def fitted(_rank=0, *, device="cluster", options=None, **how):
    model = nf.CML(plain(dim=DIM, batch=256, optimiser=nf.Adam(0.02), **options or {}))
    given = {"epochs": 2, "seed": 1, "threads": 1, "progress": False} | how
    return model.fit(DATA, device=device, **given)


def features(side):
    """Of each user or item its residue by 7."""
    n = DATA.n_items if side == "item" else DATA.n_users
    frame = pl.DataFrame({f"{side}_id": np.arange(n)})
    numbers = pl.col(f"{side}_id")
    return nf.Features.from_frame(
        frame.with_columns((numbers % 7).cast(pl.String).alias("kind"), numbers.alias("size")),
        categories="kind", numbers="size",
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 2])
def test_a_hybrid_of_a_cluster_is_whole_in_every_process(size, ranks, tmp_path):
    how = {"validation": 0.2, "k": 10, "item_features": features("item"),
           "options": {"items": nf.Hybrid(), "averaging": nf.Averaging()}}  # fmt: skip
    alone = fitted(device="cpu", **how)
    found = ranks(size, partial(fitted, **how, out=tmp_path / "m"))
    saved = nf.CML.load(tmp_path / "m")
    assert {points_of(one).tobytes() for one in found} == {points_of(saved).tobytes()}
    for one in (*found, saved):
        assert np.abs(points_of(one) - points_of(alone)).max() < (1e-7 if size == 1 else 1e-3)
        assert np.sqrt(np.mean((points_of(one) - points_of(alone)) ** 2)) <= 1e-5
        assert (one.gamma, one.best_epoch) == (alone.gamma, alone.best_epoch)
        new = one.recommend([3], k=5, among=[1, 2, 4, 6, 8, 9])
        assert new.equals(saved.recommend([3], k=5, among=[1, 2, 4, 6, 8, 9]))


def points_of(model):
    return np.concatenate([model.user_vectors, model.item_vectors])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_model_in_parts_is_the_one_that_every_process_has_without(size, ranks, tmp_path):
    how = {"validation": 0.2, "k": 10, "options": {"prior": nf.Prior()}}
    whole = ranks(size, partial(fitted, **how))[0]
    found = ranks(size, partial(fitted, **how, out=tmp_path / "m"))
    kept = store.load_folder(tmp_path / "m", kind="model").arrays
    assert sorted(kept) == ["items", "users"]
    assert len(list((tmp_path / "m").glob("users_part*"))) == size
    for mmap in (False, True):
        model = nf.CML.load(tmp_path / "m", mmap=mmap)
        assert points_of(model).tobytes() == points_of(whole).tobytes()
        assert model.user_vectors.flags.writeable is not mmap
        for one in (*found, whole):
            assert points_of(one).tobytes() == points_of(model).tobytes()
            assert (one.gamma, one.best_epoch) == (model.gamma, model.best_epoch)
            assert one.calibration.equals(model.calibration)
            history = model.history.drop("seconds")
            assert one.history.drop("seconds").equals(history)
        users = [3, 5, 599]
        assert model.recommend(users).equals(whole.recommend(users))
        assert model.similar_items(4).equals(whole.similar_items(4))
    assert np.array_equal(model.projection.points, whole.projection.points)
    model.save(tmp_path / "plain")
    assert sorted(store.load_folder(tmp_path / "plain", kind="model").arrays) == [
        "points", "projection",
    ]  # fmt: skip


def test_parts_have_ranges_that_fill_pages_and_are_mapped_side_by_side(ranks, tmp_path):
    ranks(3, partial(fitted, out=tmp_path))
    files = sorted(tmp_path.glob("*_part*"))
    sizes = [file.stat().st_size - 2**16 for file in files]
    row = 4 * DIM
    assert sizes == [
        256 * row, 256 * row, (530 - 512) * row, 256 * row, 256 * row, (600 - 512) * row,
    ]  # fmt: skip
    model = nf.CML.load(tmp_path, mmap=True)
    assert Path("/proc/self/maps").read_text().count(f"{tmp_path}/") == 6
    assert points_of(model).shape == (DATA.n_users + DATA.n_items, DIM)


def test_a_model_in_parts_serves(ranks, tmp_path):
    ranks(2, partial(fitted, out=tmp_path))
    Loaded.load(tmp_path)


def test_a_rank_holds_only_its_rows_until_it_maps(ranks, tmp_path, monkeypatch):
    """Neither validation nor the end puts the points of all ranks together."""

    def refuse(*_):
        raise AssertionError("all points on one rank")

    monkeypatch.setattr("nearfar.engine.cluster.cluster_engine.ClusterEngine.whole", refuse)
    monkeypatch.setattr("nearfar.engine.cluster.cluster_engine.ClusterEngine.finish", refuse)
    how = {"validation": 0.2, "k": 10, "options": {"prior": nf.Prior()}, "out": tmp_path / "m"}
    ranks(2, partial(fitted, **how, checkpoint=tmp_path / "run"))
    ranks(2, partial(fitted, **how, checkpoint=tmp_path / "run", epochs=3))  # goes on
    assert nf.CML.load(tmp_path / "m").history.height == 3


def test_a_run_resumed_in_parts_has_the_same_points(ranks, tmp_path):
    how = {"validation": 0.2, "k": 10}
    expected = ranks(2, partial(fitted, **how, epochs=3))[0]
    ranks(2, partial(fitted, **how, checkpoint=tmp_path / "run"))
    found = ranks(2, partial(fitted, **how, checkpoint=tmp_path / "run", epochs=3,
                             out=tmp_path / "m"))[0]  # fmt: skip
    assert points_of(found).tobytes() == points_of(expected).tobytes()


def test_a_part_that_cannot_be_written_leaves_the_model_as_it_was(ranks, tmp_path, monkeypatch):
    ranks(2, partial(fitted, out=tmp_path))
    before = (tmp_path / store.MANIFEST).read_bytes()
    keep = store.keep_part

    def full(path, entry, tables, **how):
        if entry == "items_part1":
            raise StoreError("the disk is full.")
        return keep(path, entry, tables, **how)

    monkeypatch.setattr(store, "keep_part", full)
    told = []

    def work(rank):
        with pytest.raises(StoreError) as error:
            fitted(rank, out=tmp_path, epochs=1)
        told.append(str(error.value))

    ranks(2, work)
    assert sorted(told)[0].startswith("1 of 2 processes could not write the model")
    assert sorted(told)[1] == "the disk is full."
    assert (tmp_path / store.MANIFEST).read_bytes() == before
    assert nf.CML.load(tmp_path).history.height == 2


def test_a_missing_or_changed_part_is_named(ranks, tmp_path):
    ranks(2, partial(fitted, out=tmp_path))
    (part,) = tmp_path.glob("users_part1*")
    good = part.read_bytes()
    part.write_bytes(good[:-4] + b"\0\0\0\1")
    with pytest.raises(StoreError, match=r"users_part1.* was changed after it was written"):
        nf.CML.load(tmp_path)
    part.unlink()
    with pytest.raises(StoreError, match=r"users_part1.*cannot be read"):
        nf.CML.load(tmp_path)


def test_processes_must_see_the_same_folder(ranks, tmp_path):
    def work(rank):
        with pytest.raises(StoreError, match=r"lacks 'users_part.*all processes share|1 of 2 proc"):
            fitted(rank, out=tmp_path / str(rank))

    ranks(2, work)


def test_one_process_saves_too(tmp_path):
    model = fitted(device="cpu", out=tmp_path / "m")
    assert points_of(nf.CML.load(tmp_path / "m")).tobytes() == points_of(model).tobytes()
    (tmp_path / "m" / store.MANIFEST).unlink()
    (tmp_path / "m" / "other").touch()
    with pytest.raises(StoreError, match="not empty and not a nearfar folder"):
        fitted(device="cpu", out=tmp_path / "m")


def test_an_interrupted_run_saves_the_model_of_its_last_epoch(tmp_path):
    def stop(event):
        if event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(device="cpu", out=tmp_path / "m", epochs=4, callbacks=[stop])
    assert nf.CML.load(tmp_path / "m").history.height == 2

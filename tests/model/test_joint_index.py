"""Lists of many users by ranks that share the items: those of one process, whole or resumed."""

from threading import BrokenBarrierError

import numpy as np
import pytest

import nearfar as nf
from conftest import PLAIN, hopeless, random_data
from nearfar.errors import OptionError, StoreError
from nearfar.model import batch, joint_index
from nearfar.model.batch import Written, recommend_to
from nearfar.runtime import store
from nearfar.search import diversity
from ranks import joined_ranks

pytestmark = hopeless


@pytest.fixture
def ranks(monkeypatch):
    monkeypatch.setattr(batch, "PART_ROWS", 35)  # at k = 5, 7 users a part: 5 parts
    return joined_ranks(monkeypatch)


def fitted(**options):
    model = nf.CML(PLAIN, dim=8, **options)
    validation = 0.2 if "neighbours" in options else None
    return model.fit(random_data(), epochs=1, validation=validation, k=5, threads=1)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.glob("part-*")}


MODELS = {
    "plain": {},
    "free": {"geometry": "free"},
    "prior": {"prior": nf.Prior(gamma=0.1)},
    "neighbours": {"neighbours": nf.CoOccurrence(5, weight=0.5), "prior": nf.Prior(gamma=0.1)},
}
ASKED = {
    "all": {},
    "some": {"users": [5, 3, 29, 4, 8, 9, 7, 1, 2], "allow": range(0, 60, 2), "deny": [4, 8]},
    "seen": {"exclude_seen": False},
    "diverse": {"diversity": 0.4},
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [1, 2, 3, pytest.param(70, marks=pytest.mark.full)])
def test_the_files_are_those_of_one_process(name, asked, size, ranks, tmp_path):
    fitted(**MODELS[name]).save(tmp_path / "m")
    model, how = nf.CML.load(tmp_path / "m", mmap=True), ASKED[asked]
    recommend_to(tmp_path / "one", model, k=5, threads=1, **how)
    done = ranks(
        size, lambda _: recommend_to(tmp_path / "all", model, k=5, device="cluster", **how)
    )
    n_users = len(how.get("users", range(30)))
    assert done == [Written(n_users, -(-n_users // 7), -(-n_users // 7))] * size
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    found = store.load_folder(tmp_path / "all", kind="batch").meta
    assert found == store.load_folder(tmp_path / "one", kind="batch").meta


def test_ranks_search_equally_often_for_pools_in_parts(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(diversity, "_PLACES", 3 * 60)  # 3 users at a time, of 7 or of the last 2
    model, how = fitted(), {"diversity": 0.4, "users": range(23), "k": 5}
    recommend_to(tmp_path / "one", model, **how)
    ranks(2, lambda _: recommend_to(tmp_path / "all", model, device="cluster", **how))
    assert contents(tmp_path / "all") == contents(tmp_path / "one")


def test_a_rank_looks_at_its_items_only(ranks, tmp_path, monkeypatch):
    model, held = fitted(), []
    scorer_of = joint_index.scorer_of

    def noted(queries, targets, geometry):
        held.append(targets)
        return scorer_of(queries, targets, geometry)

    monkeypatch.setattr(joint_index, "scorer_of", noted)
    ranks(3, lambda _: recommend_to(tmp_path, model, k=5, device="cluster"))
    held.sort(key=lambda part: part.__array_interface__["data"][0])
    assert [len(part) for part in held] == [20, 20, 20]
    assert np.array_equal(np.concatenate(held), model.item_vectors)
    assert all(np.shares_memory(part, model.item_vectors) for part in held)


def test_a_killed_run_goes_on_with_any_number_of_processes(ranks, tmp_path, monkeypatch):
    model = fitted()
    expected = tmp_path / "whole"
    recommend_to(expected, model, k=5)
    write, folder = batch.write_new, tmp_path / "cut"

    def killed(files):
        (file,) = files
        if file.name == "part-00001.parquet":
            raise StoreError("the disk is full.")
        write(files)

    monkeypatch.setattr(batch, "write_new", killed)
    with pytest.raises((StoreError, BrokenBarrierError)):
        ranks(2, lambda _: recommend_to(folder, model, k=5, device="cluster"))
    monkeypatch.setattr(batch, "write_new", write)
    assert "part-00001.parquet" not in contents(folder)
    (done,) = {*ranks(3, lambda _: recommend_to(folder, model, k=5, device="cluster"))}
    assert 0 < done.n_made <= 5
    assert contents(folder) == contents(expected)
    (folder / "part-00003.parquet").unlink()
    assert recommend_to(folder, model, k=5).n_made == 1  # one process goes on too
    assert contents(folder) == contents(expected)
    again = ranks(2, lambda _: recommend_to(folder, model, k=5, device="cluster"))
    assert [one.n_made for one in again] == [0, 0]


def test_an_index_is_refused(tmp_path):
    pytest.importorskip("faiss")
    model = fitted()
    index = nf.ItemIndex.build(model, 0.5, k=5)
    with pytest.raises(OptionError, match="`index` cannot be used with device='cluster'"):
        recommend_to(tmp_path, model, k=5, device="cluster", index=index)
    assert not list(tmp_path.iterdir())


def test_a_cluster_needs_a_launcher(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(OptionError, match="WORLD_SIZE is not set"):
        recommend_to(tmp_path, fitted(), device="cluster")

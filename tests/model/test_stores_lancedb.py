"""What is particular to LanceDB: folders, the index, versions of a table."""

import pytest

from nearfar.errors import OptionError, StoreError
from nearfar.model.stores.delivery import export_to
from nearfar.model.stores.lancedb_table import LancedbTable
from stored import Lance, check_rows, fitted

lancedb = pytest.importorskip("lancedb", reason="needs lancedb")


@pytest.fixture
def place(tmp_path):
    return Lance(str(tmp_path / "deep" / "vectors"))


@pytest.mark.parametrize("where", ["postgresql://shop:s3cret@host/x", "ftp://a/b", "x://s3cret"])
def test_an_address_that_lancedb_does_not_read_is_refused(where):
    with pytest.raises(
        OptionError, match=r"`where` must be a folder, or an address that begins w"
    ) as e:
        export_to(fitted(), "lancedb", where)
    assert "s3cret" not in str(e.value)


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "mine"
    file.write_text("mine")
    with pytest.raises(StoreError, match=r"mine' is a file; `where` must be the folder of LanceDB"):
        export_to(fitted(), "lancedb", file)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match=r"LanceDB cannot open|failed: "):
        export_to(fitted(), "lancedb", tmp_path / "mine" / "vectors")


def test_the_index_is_for_inner_products_and_has_all_rows(place):
    for seed in (0, 1):
        export_to(fitted(seed=seed), "lancedb", place.where, batch=7)
        table = place.open("nearfar_items")
        stats = {tuple(one.columns): table.index_stats(one.name) for one in table.list_indices()}
        assert set(stats) == {("id",), ("vector",)}
        assert stats["vector",].index_type == "IVF_FLAT"
        assert stats["vector",].distance_type == "dot"
        assert [one.num_unindexed_rows for one in stats.values()] == [0, 0]
    export_to(fitted(), "lancedb", place.where, what="users")
    (one,) = place.open("nearfar_users").list_indices()
    assert one.columns == ["id"]


def test_an_index_that_is_complete_is_not_built_again(place, monkeypatch):
    model = fitted()
    export_to(model, "lancedb", place.where)
    before = place.open("nearfar_items").version
    monkeypatch.setattr(LancedbTable, "_schema", None)  # nothing is written
    export_to(model, "lancedb", place.where)
    assert place.open("nearfar_items").version == before


def test_many_tables_are_all_found(place):
    database = lancedb.connect(place.where)
    for n in range(25):
        database.create_table(f"a{n:02}", [{"id": n}])
    model = fitted()
    export_to(model, "lancedb", place.where)
    assert export_to(model, "lancedb", place.where).n_written == 0
    check_rows(place, "nearfar_items", model)
    with pytest.raises(StoreError, match=r"'a24' of .* was not made by nearfar"):
        export_to(model, "lancedb", place.where, table="a24")

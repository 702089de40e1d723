"""What is particular to Milvus: addresses, files of Milvus Lite, the index."""

import socket
import subprocess
import sys

import pytest

from nearfar.errors import OptionError, StoreError
from nearfar.model.stores.delivery import export_to
from nearfar.model.stores.milvus_collection import LONGEST_TEXT, literal
from stored import Milvus, check_rows, fitted

pytest.importorskip("pymilvus", reason="needs pymilvus")
pytest.importorskip("milvus_lite", reason="needs milvus-lite")


@pytest.fixture
def place(tmp_path):
    return Milvus(str(tmp_path / "new" / "vectors.db"))


def test_no_server_is_an_error_without_the_password():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"http://shop:s3cret@127.0.0.1:{port}"
    with pytest.raises(
        StoreError, match=rf"Milvus cannot be reached at 'http://127.0.0.1:{port}': "
    ) as e:
        export_to(fitted(), "milvus", where)
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize("where", ["nonsense", "s3://bucket/x.db", "http://", "tcp:s3cret@host:1",
                                   "postgresql://shop:s3cret@host/x"])  # fmt: skip
def test_a_bad_address_is_refused_without_showing_it(where):
    with pytest.raises(
        OptionError, match=r"`where` must be an address of Milvus, .*ends in \.db"
    ) as e:
        export_to(fitted(), "milvus", where)
    assert "s3cret" not in str(e.value)


def test_a_file_that_is_something_else_is_refused(tmp_path):
    file = tmp_path / "mine.db"
    file.write_text("mine")
    with pytest.raises(StoreError, match=r"Milvus cannot be reached at '.*mine\.db'"):
        export_to(fitted(), "milvus", file)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match=r"The folder of '.*mine/new/x\.db' cannot be made: "):
        export_to(fitted(), "milvus", tmp_path / "mine" / "new" / "x.db")


def test_a_file_that_another_process_has_open_is_refused(place):
    model = fitted()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pymilvus import MilvusClient;"
         " c = MilvusClient(sys.argv[1]); print('open', flush=True); sys.stdin.read()",
         place.where.replace("/new/", "/")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="must not be open in another process"):
            export_to(model, "milvus", place.where.replace("/new/", "/"))
    finally:
        holder.communicate("", timeout=60)
    export_to(model, "milvus", place.where.replace("/new/", "/"))


@pytest.mark.parametrize(("what", "kind"), [("items", "HNSW"), ("users", "FLAT")])
def test_the_index_is_for_inner_products_and_has_all_rows(place, what, kind):
    export_to(fitted(), "milvus", place.where, what=what, batch=7)
    found = place.ask(lambda client: client.describe_index(f"nearfar_{what}", "vector"))
    assert (found["index_type"], found["metric_type"]) == (kind, "IP")
    assert found["pending_index_rows"] == 0


def test_the_longest_title_fits(place):
    import polars as pl

    model = fitted()
    title = "é" * (LONGEST_TEXT // 2)
    table = pl.DataFrame({"item_id": [0], "title": [title]})
    model._fitted = model._fitted._replace(interactions=model.interactions.with_item_table(table))
    export_to(model, "milvus", place.where)
    check_rows(place, "nearfar_items", model)


def test_texts_are_literals():
    assert literal("ö\n'\"") == '"ö\\n\'\\""'
    assert literal([3, -1]) == "[3, -1]"

"""``nearfar export --to``: a model's vectors in a store."""

import json
import socket

import pytest

from stored import check_rows, fitted


@pytest.fixture
def folder(tmp_path):
    fitted(titles=True).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_store_is_written_and_updated(run, folder, place):
    words = ("export", folder, place.where, "--to", place.store)
    code, said, err = run(*words)
    assert code == 0, err
    line = "{} of 5 coordinates written to nearfar_items of {}, which has {} items{}.\n"
    assert said == line.format("30 rows", place.store, 30, "")
    assert run(*words)[1] == line.format("0 rows", place.store, 30, "")
    version = check_rows(place, "nearfar_items", fitted(titles=True))
    fitted(n_items=28, seed=1).save(folder)
    _, said, _ = run(*words, "--batch", 9)
    removed = "; 2 rows of other versions removed"
    assert said == line.format("28 rows", place.store, 28, removed)
    _, said, _ = run(*words, "--what", "users", "--table", "people", "--json")
    found = json.loads(said)
    assert found.pop("version") != version
    assert found == {"store": place.store, "table": "people", "width": 5, "n_rows": 12,
                     "n_written": 12, "n_removed": 0, "n_left_out": 0}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [
    ("", "Give `--out` and a file, or `--to`, a store and its address."),
    ("x.db -o OUT", "`WHERE` is only used with --to."),
    ("-o OUT --table x", "`--table` is only used with --to."),
    ("-o OUT --batch 5", "`--batch` is only used with --to."),
    ("--to milvus", "`--to milvus` needs an address after the model; see `nearfar export --help`."),
    ("x.db --to milvus -o OUT", "`--out` is only used without --to."),
    ("x.db --to milvus --format numpy", "`--format` is only used without --to."),
    ("x.db --to milvus --popularity 0", "`--popularity` is only used without --to."),
])  # fmt: skip
def test_flags_without_effect_are_refused(run, folder, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    given = [word.replace("OUT", str(tmp_path / "out")) for word in words.split()]
    code, _, err = run("export", folder, *given)
    assert (code, err) == (2, f"nearfar: {said}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("store", ["pgvector", "milvus"])
def test_a_server_that_does_not_run_is_one_line(run, folder, store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scheme = {"pgvector": "postgresql", "milvus": "http"}[store]
    code, said, err = run("export", folder, f"{scheme}://me:s3cret@127.0.0.1:{port}", "--to", store)
    assert (code, said, len(err.splitlines())) == (1, "", 1)
    assert "cannot be reached" in err
    assert "s3cret" not in err

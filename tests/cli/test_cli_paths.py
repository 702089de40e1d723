"""Paths on the command line: an address is refused before any work, ``~`` becomes the home."""

import pytest

import nearfar as nf
from nearfar.training.run import Run

REMOTE = {
    "fit, model": "fit DATA -o s3://bucket/model",
    "fit, data": "fit s3://bucket/data -o OUT",
    "fit, checkpoint": "fit DATA -o OUT --checkpoint gs://bucket/run",
    "crossvalidate": "crossvalidate hdfs://host/data",
    "prepare, data": "prepare TABLE -o gs://bucket/data",
    "prepare, table": "prepare https://host/ratings.csv -o OUT",
    "prepare, items": "prepare TABLE -o OUT --items s3://bucket/items.csv",
    "update": "update MODEL DATA -o s3://bucket/model",
    "project": "project s3://bucket/model",
    "index": "index MODEL -o s3://bucket/index",
    "batch": "batch MODEL -o s3://bucket/lists",
    "batch, users": "batch MODEL -o OUT --users s3://bucket/users",
    "export": "export MODEL -o s3://bucket/items.parquet",
    "evaluate": "evaluate MODEL DATA --per-user s3://bucket/users.csv",
    "recommend": "recommend MODEL --user 1 --index s3://bucket/index",
    "similar": "similar s3://bucket/model --item 1",
    "serve": "serve s3://bucket/model --port 0",
    "table2, results": "table2 DATA -o s3://bucket/results",
    "table2, data": "table2 DATA s3://bucket/data -o OUT",
    "datasets": "datasets fetch ml-100k -o s3://bucket/raw",
    "demo": "demo --data s3://bucket/ml-100k.zip",
    "demo, out": "demo -o s3://bucket/model",
}


@pytest.fixture
def words(saved_model, board, tmp_path, monkeypatch):
    """Split a command, with files in place of the words in capitals."""
    monkeypatch.chdir(tmp_path)
    board.save(tmp_path / "data")
    board.to_frame().write_csv(tmp_path / "table.csv")
    places = {"DATA": "data", "TABLE": "table.csv", "OUT": "out", "MODEL": str(saved_model)}
    return lambda command: [places.get(word, word) for word in command.split()]


@pytest.mark.parametrize("command", REMOTE.values(), ids=REMOTE)
def test_an_address_is_refused_before_any_work(run, words, tmp_path, command, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda self: pytest.fail("it trains"))
    before = sorted(tmp_path.iterdir())
    code, out, err = run(*words(command))
    assert (code, out) == (1, "")
    assert "must be a path on this machine; got the address" in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_home_is_expanded_once(ok, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    ok(*words("fit ~/data -o ~/made/model --dim 3 --epochs 1 --no-progress"))
    assert nf.CML.load("~/made/model").options.dim == 3
    ok(*words("prepare ~/table.csv -o ~/made/data"))
    ok(*words("export ~/made/model -o ~/made/items.parquet"))
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == ["data", "items.parquet", "model"]
    assert not (tmp_path / "~").exists()


def test_a_folder_of_something_else_is_refused_before_training(run, words, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda self: pytest.fail("it trains"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    code, _, err = run(*words("fit DATA -o OUT"))
    assert code == 1
    assert "not empty and not a nearfar folder" in err


@pytest.mark.parametrize("name", ["none.csv", "none"])
def test_data_that_do_not_exist_may_be_a_table(run, words, name):
    code, _, err = run(*words(f"fit {name} -o OUT"))
    assert code == 1
    assert f"'{name}' does not exist; give a folder that `nearfar prepare` wrote, or a file" in (
        " ".join(err.split())
    )


def test_metrics_of_users_go_into_an_existing_folder(run, words):
    code, _, err = run(*words("evaluate MODEL DATA --per-user none/users.csv"))
    assert code != 0
    assert "`--per-user` must be in an existing folder; got 'none/users.csv'" in (
        " ".join(err.split())
    )

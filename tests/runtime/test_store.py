import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from nearfar.errors import StoreError
from nearfar.runtime import store

ARRAYS = {"tables": {"users": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7)}}
FRAMES = {"history": pl.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25]})}


def save(path, value=1, arrays=ARRAYS, kind="model"):
    store.save_folder(path, kind=kind, meta={"value": value}, arrays=arrays, frames=FRAMES)


def payload(path, suffix):
    (file,) = path.glob(f"*.{suffix}")
    return file


def edit(path, **changes):
    """Change a manifest as somebody would who knows how it is sealed."""
    file = path / store.MANIFEST
    manifest = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({**manifest, "seal": store._seal(manifest)}))


def test_what_is_saved_comes_back(tmp_path):
    odd = {
        "turned": np.arange(6).reshape(2, 3).T,
        "none": np.zeros((0, 3)),
        "bytes": np.array([1, 255], np.uint8),
        "wide": np.array([2**63], np.uint64),
        "strided": np.arange(10)[::3],
    }
    meta = {"a": [1, 0.1, None], "b": {"ü": True}}
    store.save_folder(
        tmp_path / "x" / "y", kind="model", meta=meta, arrays={"odd": odd}, frames=FRAMES
    )
    read = store.load_folder(tmp_path / "x" / "y", kind="model")
    assert read.meta == meta
    assert read.frames["history"].equals(FRAMES["history"])
    assert read.arrays["odd"].keys() == odd.keys()
    for name, array in odd.items():
        np.testing.assert_array_equal(read.arrays["odd"][name], array)
        assert read.arrays["odd"][name].dtype == array.dtype


def test_the_same_content_is_the_same_bytes_and_the_old_content_goes(tmp_path):
    save(tmp_path)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    save(tmp_path)
    assert first == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / f".nearfar-{'0' * 32}.tmp").write_text("left by a crash")
    save(tmp_path, arrays={"tables": {"users": np.zeros(3)}})
    assert len(list(tmp_path.iterdir())) == len(first)
    assert payload(tmp_path, "safetensors").name not in first
    assert oct(payload(tmp_path, "parquet").stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_folders_that_are_not_ours_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(
        StoreError, match=r"not empty and not a nearfar folder .*thesis.txt.*another"
    ):
        save(tmp_path)
    with pytest.raises(StoreError, match="is a file; give the path of a folder"):
        save(tmp_path / "thesis.txt")
    save(tmp_path / "m")
    with pytest.raises(
        StoreError, match=r"holds a nearfar model, not a checkpoint; choose another"
    ):
        save(tmp_path / "m", kind="checkpoint")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    save(tmp_path / "m", 2)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    assert store.load_folder(tmp_path / "m", kind="model").meta == {"value": 2}


def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path):
    for bad, message in [
        ({"meta": {"x": object()}}, "`meta` must be representable as JSON"),
        ({"meta": {"x": float("nan")}}, "`meta` must be representable as JSON"),
        ({"arrays": {"t": {"a": np.array(["x"])}}}, "arrays of 't' cannot be saved"),
        ({"frames": {"f": pl.DataFrame({"a": pl.Series([()], dtype=pl.Object)})}}, "frame 'f'"),
        ({"frames": {"../f": FRAMES["history"]}}, "lower-case words"),
        ({"frames": FRAMES, "arrays": {"history": {}}}, "each used once"),
    ]:
        with pytest.raises(StoreError, match=message):
            store.save_folder(tmp_path / "new", **{"kind": "model", "meta": {}, **bad})
    assert not (tmp_path / "new").exists()


def test_files_of_a_form_of_their_own_are_kept_where_they_can_be_opened(tmp_path):
    def save_files(text):
        files = {"lists": lambda path: path.write_bytes(text)}
        store.save_folder(tmp_path / "f", kind="index", meta={}, frames=FRAMES, files=files)

    for text in (b"first", b"second"):
        save_files(text)
        read = store.load_folder(tmp_path / "f", kind="index")
        assert read.files["lists"].read_bytes() == text
        assert read.files.keys() == {"lists"}
        assert read.frames.keys() == {"history"}
        assert len(list((tmp_path / "f").iterdir())) == 3
    with pytest.raises(StoreError, match="each used once"):
        store.save_folder(tmp_path / "x", kind="index", meta={}, frames=FRAMES,
                          files={"history": lambda path: None})  # fmt: skip
    read.files["lists"].write_bytes(b"Second")
    with pytest.raises(StoreError, match=r"lists-\w+.faiss' was changed after it was written"):
        store.load_folder(tmp_path / "f", kind="index")


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_damage_is_found(tmp_path, suffix):
    save(tmp_path)
    file = payload(tmp_path, suffix)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(
        StoreError, match=rf"{file.name}' must have \d+ bytes; .*restore it or save"
    ):
        store.load_folder(tmp_path, kind="model")
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        StoreError, match=rf"{file.name}' was changed after it was written.*restore it or"
    ):
        store.load_folder(tmp_path, kind="model")
    file.unlink()
    with pytest.raises(StoreError, match=rf"{file.name}' cannot be read .*restore it or save"):
        store.load_folder(tmp_path, kind="model")


def test_manifests_are_not_trusted(tmp_path):
    with pytest.raises(StoreError, match=r"does not exist; give a folder that nearfar has saved"):
        store.load_folder(tmp_path / "no", kind="model")
    with pytest.raises(StoreError, match=r"has no nearfar.json"):
        store.load_folder(tmp_path, kind="model")
    save(tmp_path)
    with pytest.raises(StoreError, match="holds a nearfar model, not a checkpoint"):
        store.load_folder(tmp_path, kind="checkpoint")
    entry = {"size": 4, "sha256": "0" * 64}
    for name in ("../secret", "/etc/passwd", "a/b-000000000000.parquet", 5, "nearfar.json"):
        edit(tmp_path, files={"t": {"file": name, **entry}})
        with pytest.raises(StoreError, match="not a plain name of a nearfar file"):
            store.load_folder(tmp_path, kind="model")
    for files in ([], {"t": 3}, {"t": {"file": "x"}}, None):
        edit(tmp_path, files=files)
        with pytest.raises(
            StoreError, match=r"nearfar.json' is damaged .*remove the folder and save"
        ):
            store.load_folder(tmp_path, kind="model")
    edit(tmp_path, format=store.FORMAT + 1, nearfar="9.9")
    with pytest.raises(StoreError, match=rf"format {store.FORMAT + 1}, written by nearfar 9.9; .*"
                                         rf"reads format {store.FORMAT}. Upgrade"):  # fmt: skip
        store.load_folder(tmp_path, kind="model")
    edit(tmp_path, format=0, nearfar="0.0.1")
    with pytest.raises(StoreError, match=r"format 0, written by nearfar 0.0.1; .*save it again"):
        store.load_folder(tmp_path, kind="model")
    edit(tmp_path, format="1")
    with pytest.raises(StoreError, match="names no format version"):
        store.load_folder(tmp_path, kind="model")
    for text in ("", "{", "[]", "\xff", "[" * 100_000):
        (tmp_path / store.MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(StoreError, match=r"nearfar.json' is damaged"):
            store.load_folder(tmp_path, kind="model")


def test_a_manifest_that_somebody_changed_is_refused(tmp_path):
    save(tmp_path)
    file = tmp_path / store.MANIFEST
    whole = file.read_text()
    assert json.loads(whole)["seal"]
    deep = '"meta": {"x": ' + "[" * 700 + "]" * 700 + ", "
    for old, new in (
        ('"value": 1', '"value": 2'), ('"value"', '"valuf"'), ('"history"', '"histori"'),
        ('"seal"', '"steal"'), ('"value": 1', '"value": NaN'), ('"meta": {', deep),
    ):  # fmt: skip
        assert whole.count(old) == 1
        file.write_text(whole.replace(old, new))
        with pytest.raises(
            StoreError, match=r"nearfar.json' was changed after it was written: restore"
        ):
            store.load_folder(tmp_path, kind="model")
    file.write_text(whole.replace("  ", "\t"))
    assert store.load_folder(tmp_path, kind="model").meta == {"value": 1}


def test_a_reader_overtaken_by_a_writer_gets_the_new_content(tmp_path, monkeypatch):
    save(tmp_path, 1)
    parsed, overtaken = store._manifest, []

    def overtaking(folder, kind):
        manifest = parsed(folder, kind)
        if not overtaken:
            overtaken.append(True)
            save(folder, 2, {"tables": {"users": np.ones(1)}})
        return manifest

    monkeypatch.setattr(store, "_manifest", overtaking)
    read = store.load_folder(tmp_path, kind="model")
    assert read.meta == {"value": 2}
    assert read.arrays["tables"]["users"].tolist() == [1.0]


@pytest.mark.parametrize("old", [True, False])
def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch, old):
    if old:
        save(tmp_path, 1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name in ("fsync", "replace"):
        for call in range(1, 5 if name == "fsync" else 4):
            left, real = [call], getattr(os, name)

            def full(*args, left=left, real=real):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(28, "No space left on device")
                return real(*args)

            with monkeypatch.context() as patched:
                patched.setattr(os, name, full)
                with pytest.raises(
                    StoreError, match=r"failed: .*No space left.*content is unchanged"
                ):
                    save(tmp_path, 2, {"tables": {"users": np.ones(4)}})
            assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


CRASHES = textwrap.dedent("""
    import os, signal, sys, time
    import numpy as np
    from nearfar.runtime import store

    def save(path, value):
        arrays = {"tables": {"users": np.full(50_000, value), "items": np.full(9, value)}}
        store.save_folder(path, kind="model", meta={"value": value}, arrays=arrays)

    def value(path):
        read = store.load_folder(path, kind="model")
        values = {read.meta["value"], *map(int, np.concatenate([*read.arrays["tables"].values()]))}
        assert len(values) == 1, values
        return values.pop()

    def die_at(call):
        left = [call]
        for name in ("fsync", "replace", "unlink"):
            def dying(*args, real=getattr(os, name)):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return real(*args)
            setattr(os, name, dying)

    path = sys.argv[1]
    save(path, 0)
    seen, call, ended = set(), 0, 9
    while ended == 9:  # each system call of a save in turn
        call += 1
        child = os.fork()
        if child == 0:
            die_at(call)
            save(path, call)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = value(path)
        assert found in (call - 1, call), (found, call)
        seen.add(found == call)
        save(path, call)
        assert value(path) == call and len(os.listdir(path)) == 2, os.listdir(path)
    assert seen == {True, False} and call >= 6, (seen, call)

    child = os.fork()
    if child == 0:
        while True:
            call += 1
            save(path, call)
    for _ in range(10):  # a reader beside a writer
        value(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    value(path)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crash_at_any_moment_leaves_the_old_content_or_the_new(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path / "m")], capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_arrays_are_written_as_they_lie_and_the_library_reads_them(tmp_path):
    arrays = {
        "whole": np.arange(7, dtype=np.int16),
        "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "big_end": np.arange(3, dtype=">i8"),
        "flags": np.array([True, False]),
        "one": np.array(2.5),
        "none": np.zeros((0, 3), np.float32),
    }
    store.save_folder(tmp_path / "f", kind="model", meta={}, arrays={"t": arrays})
    (file,) = (tmp_path / "f").glob("t-*.safetensors")
    with safe_open(file, framework="np") as tables:
        assert set(tables.keys()) == set(arrays)
    read = store.load_folder(tmp_path / "f", kind="model").arrays["t"]
    for name, table in arrays.items():
        assert np.array_equal(read[name], table)
        assert read[name].shape == table.shape
        assert read[name].dtype == table.dtype.newbyteorder("=")

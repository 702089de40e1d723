"""Model folders that are corrupt, cut off or made to do harm: read as they were, or refused."""

import copy
import json
import random
import shutil
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save

import nearfar as nf
from conftest import PLAIN, checkerboard
from nearfar.errors import StoreError
from nearfar.runtime import store

EACH = 520
"""Spoilt folders of the default run, read and mapped; each in one of the ways below."""
MANY = 2_600
"""Those of the long run, which are others."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    data = checkerboard().with_item_table(
        pl.DataFrame({"item_id": range(4), "title": ["a", "b", "c", "d"]})
    )
    model = nf.CML(PLAIN, dim=4, batch=8).fit(data, epochs=2, validation=0.2)
    model.save(path)
    return path, {file.name: file.read_bytes() for file in path.iterdir()}, nf.CML.load(path)


def entries(files):
    return json.loads(files[store.MANIFEST])["files"]


def put(files, entry, content):
    """Replace a payload as somebody would who knows how a folder is sealed."""
    manifest = json.loads(files[store.MANIFEST])
    listed = manifest["files"][entry]
    del files[listed["file"]]
    digest = sha256(content).hexdigest()
    name = store._named(entry, digest, listed["file"].rsplit(".", 1)[1])
    manifest["files"][entry] = {"file": name, "size": len(content), "sha256": digest}
    files[name] = content
    seal(files, manifest)


def seal(files, manifest):
    manifest["seal"] = store._seal(manifest)
    files[store.MANIFEST] = json.dumps(manifest).encode()


def spoilt_bytes(data, rng):
    """Flip, cut, repeat or insert; never the same as before."""
    where = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:where] + bytes([data[where] ^ 1 << rng.randrange(8)]) + data[where + 1 :]
    if kind == 1:
        return data[:where]
    if kind == 2:
        return data + data[where:]
    if kind == 3:
        return data[:where] + rng.randbytes(rng.randrange(1, 40)) + data[where:]
    return rng.randbytes(rng.randrange(200))


def damage(files, rng):
    name = rng.choice(sorted(files))
    files[name] = spoilt_bytes(files[name], rng)


def lose(files, rng):
    del files[rng.choice(sorted(files))]


def damage_and_seal(files, rng):
    entry = rng.choice(sorted(entries(files)))
    put(files, entry, spoilt_bytes(files[entries(files)[entry]["file"]], rng))


HOSTILE = (
    None, True, -1, 0, 2**31, 2**63, 2**64, 1e308, "", "../../etc/passwd", "/etc/passwd", "..",
    "points-000000000000.safetensors/../x", "\x00", "ü" * 1000, [], {}, [[]], {"kind": "Adam"},
    {"kind": "__import__", "x": 1}, [1] * 1000, "NaN", "Infinity", {"": {"": []}},
)  # fmt: skip


def leaves(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


def edit_the_manifest(files, rng):
    manifest = json.loads(files[store.MANIFEST])
    path = rng.choice([p for p in leaves(manifest) if p and p[0] not in ("seal", "nearfar")])
    place = manifest
    for key in path[:-1]:
        place = place[key]
    if rng.random() < 0.2:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(rng.choice(HOSTILE))
    seal(files, manifest)


def another_table(files, rng, original):
    table = {"users": original.user_vectors, "items": original.item_vectors}
    tables = {"points": table, "projection": {
        "points": original.projection.points, "mean": original.projection.mean,
        "axes": original.projection.axes}}  # fmt: skip
    entry = rng.choice(sorted(tables))
    parts = {name: np.array(value) for name, value in tables[entry].items()}
    name = rng.choice(sorted(parts))
    old = parts[name]
    kind = rng.randrange(7)
    if kind == 0:
        old.ravel()[rng.randrange(old.size)] = rng.choice([np.nan, np.inf, -np.inf])
    elif kind == 1:
        parts[name] = old.astype(rng.choice([np.float64, np.float16, np.int32, np.uint8, np.bool_]))
    elif kind == 2:
        parts[name] = old[:-1]
    elif kind == 3:
        parts[name] = np.concatenate([old, old])
    elif kind == 4:
        parts[name] = old.reshape(-1)[:, None, None]
    elif kind == 5:
        del parts[name]
    else:
        parts[name] = np.empty((0, 4), np.float32)
    put(files, entry, save(parts))


def absurd_shapes(files, rng):
    """A safetensors header that promises more than there is, or twice the same."""
    name = entries(files)["points"]["file"]
    data = files[name]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    one = header[rng.choice(["users", "items"])]
    kind = rng.randrange(5)
    if kind == 0:
        one["shape"] = [2**62, 2**62]
    elif kind == 1:
        one["data_offsets"] = [0, 2**63 - 1]
    elif kind == 2:
        one["shape"] = [-1, 4]
    elif kind == 3:
        one["data_offsets"] = one["data_offsets"][::-1]
    else:
        one["dtype"] = rng.choice(["F99", "BF16", 7, None])
    text = json.dumps(header).encode()
    claimed = rng.choice([len(text), 2**63, len(text) + 8, 0])
    put(files, "points", claimed.to_bytes(8, "little") + text + data[8 + length :])


def another_frame(files, rng, folder):
    entry = rng.choice(sorted(folder.frames))
    frame = folder.frames[entry]
    column = rng.choice(frame.columns)
    old = frame[column]
    kind = rng.randrange(7)
    if kind == 0:
        frame = frame.drop(column)
    elif kind == 1:
        frame = frame.with_columns(pl.Series(column, [None] * len(old)))
    elif kind == 2:
        values = [rng.choice([-1, 2**31 - 1, 10**6])] * len(old)
        frame = frame.with_columns(pl.Series(column, values))
    elif kind == 3:
        frame = frame.with_columns(pl.Series(column, [f"{value}" for value in old]))
    elif kind == 4:
        frame = frame[: rng.randrange(len(old))]
    elif kind == 5:
        frame = pl.concat([frame, frame])
    else:
        frame = frame.with_columns(pl.Series(column, [float("nan")] * len(old)))
    target = folder.scratch / "frame"
    frame.write_parquet(target)
    put(files, entry, target.read_bytes())


class Original:
    """What was saved, in parts."""

    def __init__(self, path, scratch):
        self.frames, self.scratch = store.load_folder(path, kind="model").frames, scratch


@pytest.mark.parametrize("mmap", [False, pytest.param(True, marks=pytest.mark.full)])
def test_spoilt_models_are_read_as_they_were_or_refused(saved, tmp_path, mmap, capfd):
    check(saved, tmp_path, range(EACH), mmap)
    capfd.readouterr()  # polars panics over some files, and says so


@pytest.mark.slow
@pytest.mark.parametrize("mmap", [False, True])
def test_thousands_of_spoilt_models(saved, tmp_path, mmap, capfd):
    assert 2 * MANY >= 5_000
    check(saved, tmp_path, range(10**6, 10**6 + MANY), mmap)
    capfd.readouterr()


def check(saved, tmp_path, numbers, mmap):
    """Damage that nobody hid is always found; what is sealed anew is refused or harmless."""
    path, whole, original = saved
    parts, place = Original(path, tmp_path), tmp_path / "model"
    ways = [
        damage, lose, damage_and_seal, edit_the_manifest, absurd_shapes,
        lambda files, rng: another_table(files, rng, original),
        lambda files, rng: another_frame(files, rng, parts),
    ]  # fmt: skip
    outcomes = np.zeros((len(ways), 2), int)
    for number in numbers:
        rng = random.Random(2 * number + mmap)
        files, way = dict(whole), number % len(ways)
        ways[way](files, rng)
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        try:
            model = nf.CML.load(place, mmap=mmap)
        except StoreError:
            outcomes[way, 0] += 1
        else:
            outcomes[way, 1] += 1
            assert way > 1, f"damage was not found: {number}"
            harmless(model, original)
        del files
        shutil.rmtree(place)
    assert outcomes[:, 0].min() > len(numbers) / len(ways) / 10, outcomes.tolist()
    assert outcomes.sum() == len(numbers)


def harmless(model, original):
    """It is a model: its tables are numbers that fit its data, and it recommends."""
    data = model.interactions
    for table, n in ((model.user_vectors, data.n_users), (model.item_vectors, data.n_items)):
        assert table.shape == (n, model.options.dim)
        assert table.dtype == np.float32
        assert np.isfinite(table).all()
    assert model.projection.points.shape == (data.n_items, 2)
    users = data.user_ids.to_list()[:1]
    found = model.recommend(users, k=3)
    assert found["score"].is_finite().all()
    assert set(found["item_id"]) <= set(data.item_ids.to_list())
    if model.interactions == original.interactions and model.options == original.options:
        table = np.array(model.user_vectors)
        assert table.shape == original.user_vectors.shape


def test_a_sealed_manifest_cannot_point_outside_the_folder(saved, tmp_path):
    path, _, _ = saved
    place = tmp_path / "model"
    shutil.copytree(path, place)
    secret = tmp_path / "points-000000000000.safetensors"
    secret.write_bytes(b"secret")
    for name in (
        "../points-000000000000.safetensors",
        str(secret),
        "points-000000000000.safetensors\x00",
    ):
        files = {store.MANIFEST: (path / store.MANIFEST).read_bytes()}
        manifest = json.loads(files[store.MANIFEST])
        manifest["files"]["points"]["file"] = name
        seal(files, manifest)
        (place / store.MANIFEST).write_bytes(files[store.MANIFEST])
        with pytest.raises(StoreError, match="not a plain name of a nearfar file"):
            nf.CML.load(place)

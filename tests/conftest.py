"""Data and helpers that several test modules use."""

import json
import os
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from nearfar import CML, Interactions, datasets
from nearfar.cli import app as commands
from nearfar.errors import SourceError
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import Adam
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

try:
    import torch
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)  # work as little as that of the tests is only held up by more

collect_ignore = ["engine/ahead.py"]  # a script that needs Triton

# a kernel may be compiled or read from the disk inside an example
settings.register_profile("nearfar", deadline=None)
settings.load_profile("nearfar")


def import_path(file):
    """Where a child process finds what the test module `file` imports, as one word."""
    return os.pathsep.join([str(Path(file).parent), str(Path(__file__).parent)])


TORCH_DEVICES = [
    pytest.param(
        "torch:cpu", marks=pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
    ),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                torch is None or not torch.cuda.is_available(), reason="there is no GPU here"
            ),
        ],
    ),
]
"""What tests of the PyTorch parts run on."""


def random_data(n_users=30, n_items=60, share=0.15, seed=0, crowded=False):
    """Random interactions, some items far more popular; with `crowded`, user 0 has nearly all."""
    rng = np.random.default_rng(seed)
    attraction = np.exp(rng.normal(0, 1, n_items))
    liked = rng.random((n_users, n_items)) < np.clip(share * attraction, 0, 0.9)
    liked[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    liked[rng.integers(0, n_users, n_items), np.arange(n_items)] = True
    if crowded:
        liked[0, : n_items - 3] = True
    return Interactions.from_pairs(
        [(int(u), int(i)) for u, i in zip(*np.nonzero(liked), strict=True)]
    )


PLAIN = Options(
    sampler=Uniform(), negatives=5, triplet=Triplet(), optimiser=Adam(), averaging=None, prior=None
)
"""Eq. 1 with uniform negatives and Adam: what most tests start from."""


def plain(**changes):
    """`PLAIN` with changes."""
    return replace(PLAIN, **changes)


SAMPLERS = {
    "uniform": Uniform(),
    "popularity": Popularity(0.7),
    "popularity distinct": Popularity(distinct=True, redraws=3),
    "two-stage": TwoStage(20),
    "two-stage replaced": TwoStage(25, -0.5, distinct=False),
    "two-stage initial": TwoStage(20, vectors="initial"),
    "two-stage released": TwoStage(1000, released_weight=True),
    "shared": Shared(0.0),
    "shared popular": Shared(0.7),
    "two-stage user": TwoStage(20, towards="user", sharpness=0.3),
}
"""One of each kind of sampler, and of each way it draws."""


hopeless = pytest.mark.filterwarnings(
    "ignore:NDCG on the validation part", "ignore:training goes badly"
)
"""For what is trained on `random_data`, where popularity is all there is to learn."""


def checkerboard(n=20):
    """User u likes item i when both are even or both are odd, but for i = u: that one is right."""
    return Interactions.from_pairs(
        [(u, i) for u in range(n) for i in range(n) if (u + i) % 2 == 0 and u != i]
    )


@pytest.fixture
def board():
    return checkerboard()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server with pgvector; call it for the address of an empty schema."""
    with stored().running_postgres() as schema:
        yield schema


@pytest.fixture(params=["pgvector", "milvus", "lancedb"])
def place(request, tmp_path):
    """An empty place of each store of vectors, the real thing."""
    return stored().new_place(request.param, request, tmp_path)


def stored():
    """The module `stored`, which imports this one."""
    return import_module("stored")


@pytest.fixture(scope="session")
def ml_100k():
    """MovieLens-100K, from wherever it is to be had."""
    try:
        return datasets.load("ml-100k")
    except SourceError as error:
        pytest.skip(f"MovieLens-100K is not to be had here: {str(error)[:200]}")


def titled(data):
    """Titles of all items but the last, hostile ones among them, and genres as MovieLens has."""
    titles = [f"Film {i} <img src=x onerror=alert(1)>" for i in range(data.n_items - 1)]
    genres = [f"{'even' if i % 2 == 0 else 'odd'} | other" for i in range(data.n_items - 1)]
    ids = data.item_ids.to_list()[:-1]
    return data.with_item_table(pl.DataFrame({"item_id": ids, "title": titles, "genres": genres}))


@pytest.fixture(scope="session")
def titled_model():
    """A model of the checkerboard, with titles."""
    options = plain(dim=3, batch=8, negatives=3, optimiser=Adam(0.03))
    return CML(options).fit(titled(checkerboard()), epochs=20)


@pytest.fixture(scope="session")
def other_model():
    """Another model, of other data."""
    return CML(PLAIN, dim=4).fit(random_data(), epochs=1)


@pytest.fixture(scope="session")
def saved_model(titled_model, tmp_path_factory):
    """The folder of `titled_model`."""
    path = tmp_path_factory.mktemp("models") / "model"
    titled_model.save(path)
    return path


@pytest.fixture
def model_folder(saved_model, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(saved_model, tmp_path / "model")


@pytest.fixture
def run(capsys):
    """Call the command line; gives its exit code, stdout and stderr."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            commands([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def ok(run):
    def call(*words):
        code, out, err = run(*words)
        assert code == 0, err
        return out

    return call


@pytest.fixture
def as_json(ok):
    return lambda *words: json.loads(ok(*words, "--json"))

"""Data and helpers that several test modules use."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings

from nearfar import Interactions, datasets
from nearfar.errors import SourceError
from nearfar.objective import Triplet
from nearfar.optimiser import Adam
from nearfar.options import Options
from nearfar.sampling import Uniform

try:
    import torch
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)  # work as little as that of the tests is only held up by more

# a kernel may be compiled or read from the disk inside an example
settings.register_profile("nearfar", deadline=None)
settings.load_profile("nearfar")


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


PLAIN = Options(sampler=Uniform(), negatives=5, triplet=Triplet(), optimiser=Adam(), averaging=None)
"""Eq. 1 with uniform negatives and Adam: what most tests start from."""


def plain(**changes):
    """`PLAIN` with changes."""
    return replace(PLAIN, **changes)


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
def ml_100k():
    """MovieLens-100K, from wherever it is to be had."""
    try:
        return datasets.load("ml-100k")
    except SourceError as error:
        pytest.skip(f"MovieLens-100K is not to be had here: {str(error)[:200]}")

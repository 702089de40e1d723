"""The peers: other ways to learn the same thing, each behind one small protocol.

A peer is one class in one file. It is made with the training pairs and a setting, trains a pass
when asked, and gives tables of factors, so that one evaluator ranks all of them:
``users . items + offset``. Importing a peer's module imports its library; `load` does so by name
and turns what goes wrong into a reason that can be printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

import nearfar as nf

Float32 = npt.NDArray[np.float32]
Setting = dict[str, Any]
"""Hyper-parameters of a peer by name: numbers and strings, so that they go into a CSV file."""


class Factors(NamedTuple):
    """Tables that rank: the score of item j for user i is ``users[i] . items[j] + offset[j]``."""

    users: Float32
    """(N, d)."""
    items: Float32
    """(M, d)."""
    offset: Float32 | None
    """(M,): a bias, or ``-|v|^2 / 2`` of a Euclidean model; None for none."""


class Peer(Protocol):
    """A model that learns from pairs."""

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        """Build everything that is not training: tables, samplers, indices."""

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""

    def epoch(self, positives: int | None = None) -> int:
        """Train one pass over the pairs, and nothing else; return how many pairs that were.

        With `positives`, stop after about so many, for a peer that can stop within a pass.
        """

    def factors(self) -> Factors:
        """Give the tables as of now."""


@dataclass(frozen=True)
class Kind:
    """Where a peer is found, and what is said of it."""

    module: str
    model: str
    package: str
    """The distribution on the package index."""
    batches: bool
    """Whether it trains in batches; the others take one pair at a time."""
    remedy: str
    """What to do where it is missing."""


KINDS: dict[str, Kind] = {
    "nearfar": Kind("nearfar_cml", "Nearfar", "nearfar", True, "pip install -e ."),
    "implicit BPR": Kind("implicit_bpr", "ImplicitBPR", "implicit", False, "pip install implicit"),
    "LightFM WARP": Kind(
        "lightfm_warp", "LightFMWarp", "lightfm-next", False,
        "pip install lightfm-next==1.19.0 (needs a C compiler; lightfm 1.17 no longer builds)",
    ),
    "RecBole BPR": Kind("recbole_bpr", "RecBoleBPR", "recbole", True, "pip install recbole==1.2.1"),
    "PyTorch dense Adam": Kind("torch_cml", "DenseAdam", "torch", True, "pip install torch"),
    "PyTorch SparseAdam": Kind("torch_cml", "SparseAdam", "torch", True, "pip install torch"),
    "PyTorchCML": Kind(
        "pytorchcml", "PyTorchCML", "PytorchCML", True,
        "its metadata rules out Python 3.10 and newer; pip install --no-deps"
        " --ignore-requires-python PytorchCML==0.3.1",
    ),
}  # fmt: skip
"""Every contestant by the name in the tables."""


class MissingPeerError(Exception):
    """A peer's library is not installed, or does not import."""


def load(name: str) -> type[Peer]:
    """Import a peer by its name in the tables.

    Raises
    ------
    MissingPeerError
        With the reason, and what may help.
    """
    kind = KINDS[name]
    try:
        model: type[Peer] = getattr(import_module(f"peer_models.{kind.module}"), kind.model)
    except Exception as error:  # an old library may fail on import in any way
        reason = f"{type(error).__name__}: {error}; {kind.remedy}"
        raise MissingPeerError(reason) from error
    return model


def version_of(name: str) -> str:
    """Give the package and its version, for the tables."""
    package = KINDS[name].package
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package

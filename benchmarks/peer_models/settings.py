"""What is run: the settings that are timed, and the grids that find each peer's best.

The grids were chosen around what each library's documentation suggests and what a few trial runs
showed, and are of about the same size for all.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from peer_models import Setting


class Timed(NamedTuple):
    """A row of the table of speeds."""

    peer: str
    note: str
    """What sets it apart from the other rows of its peer."""
    setting: Setting
    echonest: bool
    """Whether it is also timed on the larger, made-up data."""

    @property
    def batch(self) -> int | None:
        """None where pairs are taken one by one."""
        return self.setting.get("batch")


_SGD = {"optimiser": "sgd", "batch": 4096, "learning_rate": 0.05}
_POPULAR = {"sampler": "popularity", "beta": 1.0}

TIMED = (
    Timed("nearfar", "Adam", {"batch": 4096, "learning_rate": 5e-3}, True),
    Timed("nearfar", "Adam", {"batch": 256, "learning_rate": 5e-3}, True),
    Timed("nearfar", "SGD", _SGD, True),
    Timed("nearfar", "SGD, popular negatives", _SGD | _POPULAR, True),
    Timed(
        "implicit BPR",
        "SGD, popular negatives",
        {"learning_rate": 0.1, "regularization": 0.003},
        True,
    ),
    Timed("LightFM WARP", "Adagrad, up to 10 draws", {"learning_rate": 0.05}, False),
    *(
        Timed(peer, note, {"batch": batch, "learning_rate": rate}, peer.startswith("PyTorch "))
        for peer, note, rate in (
            ("RecBole BPR", "dense Adam", 0.02),
            ("PyTorch dense Adam", "dense Adam", 5e-3),
            ("PyTorch SparseAdam", "lazy Adam", 5e-3),
            ("PyTorchCML", "dense Adam", 0.02),
        )
        for batch in (4096, 256)
    ),
)
"""One negative each; the learning rates make them learn the planted data within thirty passes."""


def _grid(fixed: Setting | None = None, **axes: tuple[object, ...]) -> list[Setting]:
    """Every combination of the axes, each with the fixed values."""
    combinations = product(*axes.values())
    return [dict(zip(axes, values, strict=True)) | (fixed or {}) for values in combinations]


GRIDS: dict[str, list[Setting]] = {
    "nearfar": [
        *_grid({"optimiser": "sgd", "batch": 256, "learning_rate": 0.2}, negatives=(10, 20)),
        {"optimiser": "sgd", "batch": 256, "learning_rate": 0.2, "negatives": 10,
         "sampler": "popularity", "beta": 0.25},
        {"batch": 256, "negatives": 10, "learning_rate": 1e-3},
        {"options": "default"},
    ],
    "implicit BPR": [
        *_grid(learning_rate=(0.05, 0.1), regularization=(0.0003, 0.001)),
        {"learning_rate": 0.02, "regularization": 0.0003},
        {"learning_rate": 0.01, "regularization": 0.01},
    ],
    "LightFM WARP": _grid(learning_rate=(0.05, 0.1), max_sampled=(10, 30)),
    "RecBole BPR": [
        *_grid({"batch": 16384}, learning_rate=(3e-3, 1e-2)),
        {"batch": 4096, "learning_rate": 3e-3},
    ],
    "PyTorch dense Adam": _grid({"batch": 4096, "learning_rate": 1e-2}, negatives=(5, 1)),
    "PyTorch SparseAdam": _grid({"batch": 4096, "learning_rate": 1e-2}, negatives=(5, 1)),
    "PyTorchCML": [
        {"batch": 4096, "learning_rate": 1e-2},
        {"batch": 16384, "learning_rate": 3e-2},
    ],
}  # fmt: skip
"""The settings whose best is a peer's own best."""

CAPS: dict[str, float] = dict.fromkeys(GRIDS, 75.0) | dict.fromkeys(
    ("nearfar", "implicit BPR", "LightFM WARP"), 40.0
)
"""Processor seconds (of a thread) that a cell gets for training; the slow ones more."""

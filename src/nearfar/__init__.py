"""Collaborative metric learning: what a user likes is near, the rest is far.

Start with `Interactions` (a raw log becomes some with `prepare`), cut them with `split`, fit a
`CML`, `evaluate` it, and ask it to ``recommend``. The published methods are in `presets`; every
error is in `errors`.

A name is imported when it is asked for, so a part of the package needs only what it uses: kernels
and metrics do without the readers' polars, and the library without the command line's typer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nearfar import baselines, datasets, errors, prepare, presets, split
    from nearfar.approximate import ItemIndex
    from nearfar.evaluation import Evaluation, evaluate
    from nearfar.interactions import Interactions
    from nearfar.model import CML
    from nearfar.objective import Decorrelate, SpreadOut, Triplet
    from nearfar.optimiser import SGD, Adagrad, Adam, Averaging
    from nearfar.options import Options
    from nearfar.sampling import Popularity, Shared, TwoStage, Uniform

__all__ = [
    "CML",
    "SGD",
    "Adagrad",
    "Adam",
    "Averaging",
    "Decorrelate",
    "Evaluation",
    "Interactions",
    "ItemIndex",
    "Options",
    "Popularity",
    "Shared",
    "SpreadOut",
    "Triplet",
    "TwoStage",
    "Uniform",
    "baselines",
    "datasets",
    "errors",
    "evaluate",
    "prepare",
    "presets",
    "split",
]

_MODULES = ("baselines", "datasets", "errors", "prepare", "presets", "split")
_OWNERS = {
    "approximate": ("ItemIndex",),
    "evaluation": ("Evaluation", "evaluate"),
    "interactions": ("Interactions",),
    "model": ("CML",),
    "objective": ("Decorrelate", "SpreadOut", "Triplet"),
    "optimiser": ("SGD", "Adagrad", "Adam", "Averaging"),
    "options": ("Options",),
    "sampling": ("Popularity", "Shared", "TwoStage", "Uniform"),
}
_OWNER = {name: owner for owner, names in _OWNERS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _OWNER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_OWNER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

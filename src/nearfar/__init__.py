"""Collaborative metric learning: items that a user likes are near, other items are far.

Start with `Interactions` (`prepare` makes them from a raw log), divide them with `split`, fit a
`CML`, `evaluate` it, and call its ``recommend``; `export` writes its vectors to files, `export_to`
to databases. The published methods are in `presets`, grids of runs and their comparison in
`experiment`, and the exceptions in `errors`.

Public names are imported on first access, so each part of the package loads only its own
dependencies: kernels and metrics do not load polars, and the library does not load typer.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__: str

if TYPE_CHECKING:
    from nearfar import datasets, errors, experiment
    from nearfar.data import split
    from nearfar.data.contents import Contents
    from nearfar.data.features import Features
    from nearfar.data.interactions import Interactions
    from nearfar.evaluation import baselines
    from nearfar.evaluation.front import Front, front
    from nearfar.evaluation.ranking import evaluate
    from nearfar.evaluation.result import Evaluation
    from nearfar.method import presets
    from nearfar.method.co_occurrence import CoOccurrence
    from nearfar.method.hybrid import Hybrid, Linear, Module
    from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
    from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging
    from nearfar.method.options import Options
    from nearfar.method.prior import Prior
    from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
    from nearfar.model import spark
    from nearfar.model.cml import CML
    from nearfar.model.export import export
    from nearfar.model.stores.delivery import export_to
    from nearfar.prepare import Rules, prepare
    from nearfar.search.item_index import ItemIndex
    from nearfar.tuning.tuner import tune

__all__ = [
    "CML",
    "SGD",
    "Adagrad",
    "Adam",
    "Averaging",
    "CoOccurrence",
    "Contents",
    "Decorrelate",
    "Evaluation",
    "Features",
    "Front",
    "Hybrid",
    "Interactions",
    "ItemIndex",
    "Linear",
    "Module",
    "Options",
    "Popularity",
    "Prior",
    "Rules",
    "Shared",
    "SpreadOut",
    "Triplet",
    "TwoStage",
    "Uniform",
    "baselines",
    "datasets",
    "errors",
    "evaluate",
    "experiment",
    "export",
    "export_to",
    "front",
    "prepare",
    "presets",
    "spark",
    "split",
    "tune",
]

_OWNERS = {
    "": ("datasets", "errors", "experiment"),
    "data": ("split",),
    "data.contents": ("Contents",),
    "data.features": ("Features",),
    "data.interactions": ("Interactions",),
    "evaluation": ("baselines",),
    "evaluation.front": ("Front", "front"),
    "evaluation.ranking": ("evaluate",),
    "evaluation.result": ("Evaluation",),
    "method": ("presets",),
    "method.co_occurrence": ("CoOccurrence",),
    "method.hybrid": ("Hybrid", "Linear", "Module"),
    "method.loss": ("Decorrelate", "SpreadOut", "Triplet"),
    "method.optimiser": ("SGD", "Adagrad", "Adam", "Averaging"),
    "method.options": ("Options",),
    "method.prior": ("Prior",),
    "method.sampling": ("Popularity", "Shared", "TwoStage", "Uniform"),
    "model": ("spark",),
    "model.cml": ("CML",),
    "model.export": ("export",),
    "model.stores.delivery": ("export_to",),
    "prepare": ("Rules", "prepare"),
    "search.item_index": ("ItemIndex",),
    "tuning.tuner": ("tune",),
}
"""The package or module that contains each public name."""
_OWNER = {name: owner for owner, names in _OWNERS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module(f"{__name__}.version").VERSION
    if name not in _OWNER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    owner = f"{__name__}.{_OWNER[name]}".removesuffix(".")
    module = import_module(owner)
    if owner == f"{__name__}.{name}":
        return module  # `prepare`: a package that can be called
    value = module.__dict__.get(name) if owner != __name__ else None
    if value is None:
        value = import_module(f"{owner}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _before_fork() -> None:
    """Record whether the threads of polars run, which a forked process will lack."""
    if "polars" in sys.modules:
        import_module(f"{__name__}.runtime.forks").before_fork()


getattr(os, "register_at_fork", dict)(before=_before_fork)  # Windows has no fork

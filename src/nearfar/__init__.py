"""Collaborative metric learning: what a user likes is near, the rest is far.

Start with `Interactions` (a raw log becomes some with `prepare`), cut them with `split`, fit a
`CML`, `evaluate` it, and ask it to ``recommend``. The published methods are in `presets`; every
error is in `errors`.
"""

__version__ = "0.1.0"

from nearfar import baselines, datasets, errors, prepare, presets, split
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

"""Experiments: grids of settings over folds, and statistical comparison of the results.

A `Grid` of `Setting` objects, each trained by a `Schedule`, is computed cell by cell into a folder
and resumes there if it was killed; `write_report` writes tables, significance tests and plots of
the folder. ``table2.rows`` are the settings of the paper's Table 2. From the outcomes (`load_all`),
`summary` makes one row per setting, `tidy` a table of all metrics for programs, and `paired`
compares two settings user by user; `diagnose` describes a model's negatives and lists.

Examples
--------
>>> import tempfile
>>> import nearfar as nf
>>> liked = [(u, i) for u in range(20) for i in range(20) if (u + i) % 2 == 0]
>>> data = nf.Interactions.from_pairs(liked)
>>> settings = (
...     nf.experiment.Setting("by popularity", nf.Options(dim=4, sampler=nf.Popularity())),
...     nf.experiment.Setting("uniform", nf.Options(dim=4, sampler=nf.Uniform())),
... )
>>> short = nf.experiment.Schedule(epochs=2)
>>> grid = nf.experiment.Grid(settings, learning_rates=(0.01,), folds=2, schedule=short)
>>> with tempfile.TemporaryDirectory() as folder:
...     failures = grid.run({"made up": data}, folder, workers=0, progress=False)
...     found = nf.experiment.summary(nf.experiment.load_all(folder))
>>> found["setting"].to_list(), found["folds"].to_list(), failures
(['uniform', 'by popularity'], [2, 2], {})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.experiment import table2
    from nearfar.experiment.analysis import diagnose
    from nearfar.experiment.cells import Outcome, Setting, load_all
    from nearfar.experiment.grid import Grid
    from nearfar.experiment.report import write_report
    from nearfar.experiment.significance import paired
    from nearfar.experiment.tables import summary, tidy
    from nearfar.training.schedule import Schedule

__all__ = [
    "Grid",
    "Outcome",
    "Schedule",
    "Setting",
    "diagnose",
    "load_all",
    "paired",
    "summary",
    "table2",
    "tidy",
    "write_report",
]

_OWNER = {
    "Grid": "experiment.grid",
    "Outcome": "experiment.cells",
    "Schedule": "training.schedule",
    "Setting": "experiment.cells",
    "diagnose": "experiment.analysis",
    "load_all": "experiment.cells",
    "paired": "experiment.significance",
    "summary": "experiment.tables",
    "table2": "experiment",
    "tidy": "experiment.tables",
    "write_report": "experiment.report",
}
"""The module of each public name, imported on first use, because some need scipy."""


def __getattr__(name: str) -> Any:
    if name not in _OWNER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "table2":
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"nearfar.{_OWNER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

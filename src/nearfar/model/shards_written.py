"""A model saved by all processes of a cluster: each writes a part of the points, none has all.

Owners first send their rows on, so that part r has a range of the users and one of the items, in
the order of their numbers. Parts begin and end on whole pages, so one process maps them side by
side and has tables like those of any saved model, without a copy.
"""

from __future__ import annotations

from functools import partial
from os import PathLike

import numpy as np

from nearfar.engine import Collective
from nearfar.method.options import Options
from nearfar.model.fitted import SHARDS, Fitted, all_finite, commit_shards, keep_shards, map_shards
from nearfar.runtime import store
from nearfar.runtime.arrays import Float32
from nearfar.runtime.joined_files import rows_a_page
from nearfar.search.row_ranges import even_bounds, in_ranges
from nearfar.training.kept_together import all_kept, together

_WHAT = "the model"


def write_shards(
    path: str | PathLike[str], engine: Collective, own: Float32, fitted: Fitted, options: Options
) -> Fitted:
    """Write a model, atomically. All processes call it, and must see the same folder.

    Parameters
    ----------
    path : path
    engine : Collective
        It says which rows this process has.
    own : float32 array of shape (n, d)
        The points of these rows.
    fitted : Fitted
        The rest of the model; its points are not looked at.
    options : Options

    Returns
    -------
    Fitted
        The model with the points mapped from the files.

    Raises
    ------
    StoreError
        A process cannot write, or does not see the others' files.
    """
    kept = _parts_kept(path, engine, own)
    commit = partial(commit_shards, path, kept, fitted, options)
    together(engine, commit if engine.rank == 0 else None, _WHAT)
    users, items = map_shards(path, kept)
    return fitted._replace(users=users, items=items)


def _parts_kept(
    path: str | PathLike[str], engine: Collective, own: Float32
) -> dict[str, store.Kept]:
    """Write this process's part of the points; return what all have written."""
    problem, rows, ranks = engine.problem, engine.own_rows, engine.group
    n = int(np.count_nonzero(rows < problem.n_users))
    multiple = rows_a_page(own[:1].nbytes or own.itemsize * problem.options.dim)
    users, items = (
        in_ranges(ranks, numbers, points, even_bounds(total, ranks.size, multiple))
        for numbers, points, total in (
            (rows[:n], own[:n], problem.n_users),
            (rows[n:] - problem.n_users, own[n:], problem.n_items),
        )
    )
    write = partial(keep_shards, path, engine.rank, users, items)
    return all_kept(engine, SHARDS, write, _WHAT)


def finite_everywhere(engine: Collective, own: Float32) -> bool:
    """Return whether all points of all processes are finite numbers. All processes call it."""
    bad = engine.summed(np.array([0.0 if all_finite(own) else 1.0]))
    return bool(bad[0] == 0.0)

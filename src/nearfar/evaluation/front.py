"""Accuracy against popularity: one model's metrics at several settings of the popularity dial.

At setting x the score is u_i.v_j + x gamma log f_j (`nearfar.method.prior`). Lists can also be
measured at several settings of their diversity (`nearfar.search.diversity`). All settings are
measured in one pass over the products: on Last.fm and Gowalla nine of them took 1.1 to 1.25 times
as long as one evaluation (`python benchmarks/dial.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from os import PathLike
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import polars as pl

from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.errors import OptionError
from nearfar.evaluation import metrics
from nearfar.evaluation.averages import ALONE, Averages
from nearfar.evaluation.cohorts import NewUsers
from nearfar.evaluation.front_plot import plot_front
from nearfar.evaluation.ranking import (
    check_data,
    measured,
    on_average,
    ranking_bar,
    users_at_once,
    values_of,
)
from nearfar.method.prior import ItemWeights, checked_setting, log_popularity
from nearfar.runtime.arrays import Float32, Float64, Int32, Int64
from nearfar.runtime.checks import listed, local_path, said, switch, whole
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search.diversity import (
    checked_diversity,
    diversified,
    intra_list_distances,
    pool_size,
)
from nearfar.search.each_weight import top_k_each
from nearfar.search.neighbours import Points, TopK

SETTINGS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
"""The default settings of the dial."""
T = TypeVar("T")


class HasDial(Protocol):
    """A fitted model with a popularity dial."""

    @property
    def interactions(self) -> Interactions:
        """The training interactions, in which f_j is counted."""
        ...

    @property
    def weights(self) -> ItemWeights:
        """The weights of the items at every setting of the dial."""
        ...

    @property
    def gamma(self) -> float:
        """The factor of log f_j at popularity 1."""
        ...

    def dial(self, popularity: float | None = None) -> float:
        """Return a checked setting of the dial."""
        ...

    def scorer(self, device: str = "cpu", *, popularity: float | None = None) -> Any:
        """Return a scorer at a setting of the dial."""
        ...


@dataclass(frozen=True, eq=False)
class Front:
    """The metrics of a model at several settings of the popularity dial."""

    k: int
    """Length of the lists."""
    n_users: int
    """Number of evaluated users."""
    frame: pl.DataFrame
    """One row a setting: ``popularity``, ``gamma``, each metric of `nearfar.evaluate`, the standard
    error of each mean over users as ``<metric>_se``, and ``decile_1`` (the most popular tenth of
    the items) to ``decile_10``, the shares of all recommendations. If it was varied, after gamma
    also ``diversity`` and ``intra_list_distance``, 1 - cosine of two items of a list: the mean over
    its pairs, and over users (`nearfar.search.diversity.intra_list_distances`)."""
    per_user: tuple[pl.DataFrame, ...]
    """The metrics of each user, a frame a setting."""

    def __str__(self) -> str:
        apart = [c for c in ("diversity", "intra_list_distance") if c in self.frame.columns]
        columns = ["popularity", *apart, "map", "ndcg", "recall", "mmr", "coverage", "decile_1"]
        lines = [
            f"top {self.k} of {self.n_users:,} users",
            "".join(f"{c[:11]:>12}" for c in columns),
        ]
        rows = self.frame.select(columns).iter_rows()
        lines += ["".join(f"{value:>12.4f}" for value in row) for row in rows]
        return "\n".join(lines)

    def plot(self, path: str | PathLike[str]) -> None:
        """Write a plot: NDCG against MMR, with the setting written at each point.

        Parameters
        ----------
        path : path
            A file that ends in .png, .svg or .pdf; it is replaced if it exists.

        Raises
        ------
        OptionError
            `path` is not a local path or has another ending.
        StoreError
            The file cannot be written.
        MissingExtraError
            matplotlib is not installed: ``pip install "nearfar[plot]"``.
        """
        plot_front(self.frame, self.k, local_path(path))


def front(
    model: HasDial,
    train: Interactions,
    test: Interactions,
    *,
    popularity: Sequence[float] | None = None,
    diversity: Sequence[float] | None = None,
    k: int = 50,
    exclude: Interactions | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Front:
    """Evaluate a model at several settings of its popularity dial, in one pass over the products.

    Parameters
    ----------
    model : CML
        A fitted model, with a prior unless only the diversity is varied.
    train, test, k, exclude, threads, progress
        As in `nearfar.evaluate`.
    popularity : sequence of float
        The settings: 0 is distance alone, 1 as the prior was calibrated. By default 0, .25, ... to
        2 or, if `diversity` is given, the model's own alone.
    diversity : sequence of float, optional
        Settings of the diversity of lists, 0 to 1, as in `nearfar.CML.recommend`. There is a row
        for each pair of settings.

    Returns
    -------
    Front
        The metrics at each setting are those of ``nearfar.evaluate`` there.

    Raises
    ------
    OptionError
        A setting is not a number from 0 to 1,000, of diversity from 0 to 1, there is none, or one
        of popularity is above 0 and the model has no prior.
    DataError, EmptyDataError
        As `nearfar.evaluate`.
    """
    apart = None if diversity is None else _settings("diversity", diversity)
    if not hasattr(model, "dial") or isinstance(model, type):
        raise OptionError(f"`model` must be a fitted model with a prior; got {said(model)}.")
    if popularity is None:
        dial = [model.dial(x) for x in (SETTINGS if apart is None else (None,))]
    else:
        dial = [model.dial(checked_setting(x)) for x in _settings("popularity", popularity)]
    gammas, log_counts = [x * model.gamma for x in dial], model.weights.log_popularity
    points = model.scorer(popularity=0.0)
    found = at_gammas(points, train, test, gammas, k=k, exclude=exclude, log_counts=log_counts,
                      threads=threads, progress=progress, recommender=model,
                      diversity=apart)  # fmt: skip
    each = np.repeat(dial, found.frame.height // len(dial))
    frame = found.frame.insert_column(0, pl.Series("popularity", each))
    return replace(found, frame=frame)


def _settings(name: str, given: Sequence[float]) -> list[Any]:
    """Return the settings of a dial; refuse none."""
    found = listed(name, given, "numbers")
    if not found:
        raise OptionError(f"`{name}` must have at least one setting; got an empty list.")
    return [checked_diversity(x) for x in found] if name == "diversity" else found


def at_gammas(
    points: Points,
    train: Interactions,
    test: Interactions,
    gammas: Sequence[float],
    *,
    k: int = 50,
    exclude: Interactions | None = None,
    log_counts: Float32 | None = None,
    threads: int | None = None,
    progress: bool = False,
    recommender: object = None,
    diversity: Sequence[float] | None = None,
) -> Front:
    """Evaluate points with the weights gamma log f_j for several gamma; see `front`.

    log f_j are `log_counts`, float32 (M,); by default those of `train`. With `diversity` there is a
    row for each of its settings and each gamma.
    """
    k, n_threads = whole("k", k, 1, metrics.MOST_K), checked_threads(threads)
    train, test = checked_interactions("train", train), checked_interactions("test", test)
    left_out = train if exclude is None else checked_interactions("exclude", exclude)
    shown = switch("progress", progress)
    check_data(recommender, points, train, test, left_out)
    logs = log_popularity(train.item_counts) if log_counts is None else log_counts
    factors = np.array(gammas, np.float32)
    users = NewUsers("leave_out", None).cohorts(recommender, train, test).known
    apart = (None,) if diversity is None else diversity
    each = [(gamma, x) for gamma in gammas for x in apart]
    lots = [_Lists(Tally(train, test, k), points, x) for _, x in each]
    depth = max(pool_size(k, x or 0.0) for x in apart)
    at_once = users_at_once(len(gammas) * min(depth, train.n_items))
    with ranking_bar(len(users), shown) as advance:
        for start in range(0, len(users), at_once):
            part = users[start : start + at_once]
            lists = top_k_each(points, logs, factors, part, depth,
                               exclude=(left_out.indptr, left_out.items), threads=n_threads,
                               progress=advance)  # fmt: skip
            of_each = [found for found in lists for _ in apart]
            both = zip(lots, of_each, strict=True)
            _on_threads([partial(one.add, found, part) for one, found in both], n_threads)
    decile = metrics.deciles(train.item_counts)
    means = _on_threads([partial(one.row, decile) for one in lots], n_threads)
    return front_of(k, len(users), [gamma for gamma, _ in each], means, [one.tally for one in lots])


def front_of(
    k: int,
    n_users: int,
    gammas: Sequence[float],
    means: Sequence[dict[str, float]],
    tallies: Sequence[Tally],
) -> Front:
    """Return the front of several gamma, given `Tally.row` of each."""
    rows = [{"gamma": float(gamma)} | row for gamma, row in zip(gammas, means, strict=True)]
    return Front(k, n_users, pl.DataFrame(rows), tuple(tally.per_user for tally in tallies))


def _on_threads(work: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """Return the results of calls that are made on several threads, in order."""
    found: dict[int, T] = {}

    def call(n: int) -> int:
        found[n] = work[n]()
        return 1

    run_blocks(call, range(len(work)), threads, lambda n: None)
    return [found[n] for n in range(len(work))]


class Tally:
    """The metrics of one list for each user, added up over the parts of the users.

    Parameters
    ----------
    train, test : Interactions
    k : int
    pool : Averages
        Where the users are; with several processes, all call `row` in the same order.
    """

    def __init__(
        self, train: Interactions, test: Interactions, k: int, pool: Averages = ALONE
    ) -> None:
        self.train, self.test, self.k, self._pool = train, test, k, pool
        self.exposed: Int64 = np.zeros(train.n_items, np.int64)
        self.parts: list[pl.DataFrame] = []

    @property
    def per_user(self) -> pl.DataFrame:
        """The metrics of each user of this process."""
        return reduce(pl.DataFrame.vstack, self.parts)

    def add(self, items: Int32, users: Int32) -> None:
        """Add the lists of some users."""
        self.exposed += metrics.exposure(items, self.train.n_items)
        self.parts.append(measured(items, self.k, users, self.train, self.test))

    def row(self, decile: Int64) -> dict[str, float]:
        """Return all metrics; `decile` is the one of each item."""
        values, exposed = values_of(self.per_user), self._pool.added(self.exposed)
        means = on_average(values, exposed, self.train.item_counts, self._pool)
        errors = {f"{name}_se": self._pool.error(v) for name, v in values.items()}
        shares = metrics.decile_shares(decile, exposed)
        return means | errors | {f"decile_{t}": float(s) for t, s in enumerate(shares, start=1)}


class _Lists:
    """The lists of one setting, and their metrics.

    With a `diversity`, the lists are chosen from those that are added, and their distances kept.
    """

    def __init__(self, tally: Tally, points: Points, diversity: float | None) -> None:
        self.tally, self.points, self.diversity = tally, points, diversity
        self.distances: list[Float64] = []

    def add(self, best: TopK, users: Int32) -> None:
        """Add the best items of some users."""
        self.tally.add(self._chosen(best), users)

    def row(self, decile: Int64) -> dict[str, float]:
        """Return all metrics; `decile` is the one of each item."""
        return self._apart() | self.tally.row(decile)

    def _chosen(self, best: TopK) -> Int32:
        """Return the items of the lists."""
        if self.diversity is None:
            return best.items
        targets, on_sphere = self.points.targets, self.points.offset is None
        items = best.items[:, : self.tally.k]
        if self.diversity > 0.0:
            depth = pool_size(self.tally.k, self.diversity)
            pool = TopK(best.items[:, :depth], best.scores[:, :depth])
            chosen = diversified(pool, targets, self.tally.k, self.diversity, on_sphere=on_sphere)
            items = chosen.items
        self.distances.append(intra_list_distances(items, targets, on_sphere=on_sphere))
        return items

    def _apart(self) -> dict[str, float]:
        """Return the diversity and the mean distance within a list, if there is one."""
        if self.diversity is None:
            return {}
        distances = np.concatenate(self.distances)
        known = distances[~np.isnan(distances)]
        mean = float(known.mean()) if len(known) else np.nan
        return {"diversity": self.diversity, "intra_list_distance": mean}

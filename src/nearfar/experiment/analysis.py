"""Analysis of a trained model: the recommended items, the positions of items, the negatives.

Three tables, all functions of arrays and a seed:

- `exposure`: how recommendations and training interactions are distributed over popular and rare
  items;
- `cosines`: the similarity of the items of one user, compared with random items and with p(s);
- `sampling`, of `nearfar.training.drawn`: the effective number of items a negative is chosen from,
  the rate of false negatives, and the share of pairs that still violate the margin.

`diagnose` computes all three for a trained model.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.errors import DataError
from nearfar.evaluation import metrics
from nearfar.evaluation.metrics import DECILES, decile_shares, deciles
from nearfar.method.geometry import density, normalise
from nearfar.method.options import Options
from nearfar.method.prior import MOST, item_weight
from nearfar.runtime.arrays import Float32, Float64, Floats, Int32, Int64, Integers
from nearfar.runtime.checks import an_array, an_instance, checked_seed, real, whole
from nearfar.runtime.counter import Purpose, stream, uniform
from nearfar.runtime.jit import kernel
from nearfar.search.neighbours import top_k
from nearfar.search.scoring import scorer_of
from nearfar.training.drawn import check_points, sampling

BINS: Final = 100
"""Number of bins of the cosines, between -1 and 1."""
_PAIRS: Final = 8192
"""Approximate number of pairs for which `diagnose` draws negatives, for any size of batch."""
_FIRST, _OTHER, _STRANGER = -1, -2, -3  # steps that training never uses: separate random streams


def diagnose(
    points: Float32,
    train: Interactions,
    test: Interactions,
    options: Options,
    *,
    k: int = 50,
    seed: int = 0,
    threads: int | None = 1,
    learned: Interactions | None = None,
    gamma: float = 0.0,
) -> dict[str, pl.DataFrame]:
    """Return all tables of a trained model.

    Parameters
    ----------
    points : float32 array of shape (N + M, d)
        The trained points of users, then items.
    train, test : Interactions
        On the same axes. Lists leave out the items in `train` and are computed for users with items
        in both, as in `nearfar.evaluate`.
    options : Options
        The options of the model.
    k : int
        Length of the lists.
    seed : int
        Seed of the training: `sampling` draws the negatives of the first steps.
    threads : int, optional
        Number of threads; the tables do not depend on it.
    learned : Interactions, optional
        The part of `train` used for training steps, if a validation part was split off: the sampler
        does not know the rest, which counts as held out. All of `train` if None.
    gamma : float
        Factor of log f_j in the scores of the lists (`nearfar.method.prior`).

    Returns
    -------
    dict of str to DataFrame
        "exposure", "cosines" and "sampling", as returned by the functions of these names.

    Raises
    ------
    OptionError
        `options`, `k`, `seed`, `threads` or `gamma` is not what it must be.
    DataError
        The points do not fit the interactions, or a score is NaN.
    """
    train, test = checked_interactions("train", train), checked_interactions("test", test)
    known = train if learned is None else checked_interactions("learned", learned)
    options, seed = an_instance("options", options, Options), checked_seed(seed)
    points, k = np.asarray(an_array("points", points, 2), np.float32), whole("k", k)
    check_points(points, train, options)
    users, items = points[: train.n_users], points[train.n_users :]
    weight = item_weight(real("gamma", gamma, least=0.0, most=MOST), train.item_counts)
    listed = top_k(
        scorer_of(users, items, options.geometry, weight),
        np.flatnonzero((test.user_counts > 0) & (train.user_counts > 0)),
        k,
        exclude=(train.indptr, train.items),
        threads=threads,
    ).items
    n_steps = -(-min(_PAIRS, known.n_pairs) // options.batch)
    return {
        "exposure": exposure(listed, train.item_counts),
        "cosines": cosines(items, train, seed=seed),
        "sampling": sampling(points, known, (train, test), options, seed=seed, n_steps=n_steps),
    }


def exposure(items: Integers, item_counts: Int64) -> pl.DataFrame:
    """Return the shares of recommendations and training interactions by decile of popularity.

    Decile 1 is the most popular tenth of the items, by training interactions; ties are broken by
    the smaller row. With M items, decile t has those at the positions
    ``M (t - 1) / 10 <= position < M t / 10`` from 0: if M is not a multiple of 10 the sizes differ
    by one, and with fewer than 10 items some deciles are empty.

    Parameters
    ----------
    items : int array of shape (n_users, k)
        Rows of the recommended items, -1 after the end of a short list.
    item_counts : int array of shape (M,)
        Number of training interactions of each item.

    Returns
    -------
    DataFrame
        Ten rows: ``decile``, ``items`` (their number), and the decile's shares, between 0 and 1, of
        all ``recommendations`` and of all training ``interactions``; NaN if there are none.

    Raises
    ------
    DataError
        An item row does not exist.

    Examples
    --------
    >>> lists = np.array([[0, 1], [0, -1]])
    >>> exposure(lists, np.array([5, 4, 3, 3, 2, 1, 1, 1, 0, 0])).head(2).rows()
    [(1, 1, 0.6666666666666666, 0.25), (2, 1, 0.3333333333333333, 0.2)]
    """
    n_items = len(item_counts)
    if items.size and not -1 <= items.min() <= items.max() < n_items:
        raise DataError(
            f"`items` must be rows in 0 ... {n_items - 1}, or -1 for none; got {items.min()} ... "
            f"{items.max()}. Pass the counts of the interactions that the lists were made from."
        )
    decile = deciles(item_counts)
    listed = metrics.exposure(items, n_items)
    return pl.DataFrame(
        {
            "decile": np.arange(1, DECILES + 1),
            "items": np.bincount(decile, minlength=DECILES).astype(np.int64),
            "recommendations": decile_shares(decile, listed),
            "interactions": decile_shares(decile, item_counts),
        }
    )


def cosines(
    item_points: Floats,
    train: Interactions,
    *,
    n: int = 100_000,
    seed: int = 0,
) -> pl.DataFrame:
    """Compare the cosines of items of the same user with those of other items.

    For each of `n` draws, a training pair (i, j) is drawn uniformly, and with it

    - another item k of user i: v_j.v_k is one of the *positives*;
    - an item k that user i does not have, uniformly: v_j.v_k is one of the *negatives*.

    Users with a single item or with all items are left out.

    Parameters
    ----------
    item_points : array of shape (M, d)
        Normalised here, regardless of the geometry.
    train : Interactions
    n : int
        Number of draws.
    seed : int

    Returns
    -------
    DataFrame
        For each of 100 equal bins between -1 and 1: ``bin_low``, ``bin_high``, the densities
        ``positives`` and ``negatives`` (share of the draws, divided by the width of the bin; NaN if
        no user is left), and ``density``, the p(s) of two random unit vectors at the centre of the
        bin (`nearfar.method.geometry.density`).

    Raises
    ------
    OptionError
        `n` is not an integer of at least 1.
    """
    n, seed = whole("n", n), checked_seed(seed)
    one, other, stranger = _item_pairs(train, n, seed)
    unit = normalise(np.asarray(item_points, np.float32))
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    return pl.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "positives": _histogram(unit, one, other, edges),
            "negatives": _histogram(unit, one, stranger, edges),
            "density": density(middle, item_points.shape[1]),
        }
    )


def _item_pairs(train: Interactions, n: int, seed: int) -> tuple[Int32, Int32, Int32]:
    """Draw n items, each with another of the same user and one that this user does not have."""
    counts = train.user_counts[train.pair_users()]
    usable = np.flatnonzero((counts > 1) & (counts < train.n_items))
    if len(usable) == 0:
        return (np.empty(0, np.int32),) * 3
    first, second, third = (
        uniform(stream(seed, Purpose.NEGATIVE, step), np.arange(n))
        for step in (_FIRST, _OTHER, _STRANGER)
    )
    pair = usable[(first * len(usable)).astype(np.int64)]
    user, size = train.pair_users()[pair], counts[pair]
    begin = train.indptr[user]
    place = pair - begin
    further = 1 + (second * (size - 1)).astype(np.int64)
    other = begin + (place + further) % size
    rank = (third * (train.n_items - size)).astype(np.int64)
    return train.items[pair], train.items[other], _absent(rank, user, train.indptr, train.items)


@kernel
def _absent(rank: Int64, user: Int32, indptr: Int64, items: Int32) -> Int32:
    """Return the item at position `rank`, from 0, among those that the user does not have."""
    out = np.empty(rank.shape[0], np.int32)
    for n in range(rank.shape[0]):
        item = rank[n]
        for at in range(indptr[user[n]], indptr[user[n] + 1]):
            if items[at] > item:
                break
            item += 1
        out[n] = item
    return out


def _histogram(unit: npt.NDArray[Any], one: Int32, other: Int32, edges: Float64) -> Float64:
    count = np.zeros(BINS, np.int64)
    for at in range(0, len(one), 2**14):
        part = slice(at, at + 2**14)
        s = np.sum(unit[one[part]] * unit[other[part]], axis=1, dtype=np.float64)
        count += np.histogram(np.clip(s, -1.0, 1.0), edges)[0]
    if len(one) == 0:
        return np.full(BINS, np.nan)
    height: Float64 = count * BINS / (2.0 * len(one))
    return height

"""The negatives of a step for any pairs, drawn by the sampler's own `draw`.

The reference engine, fold-in and the diagnostics use this module. It is not fast, but works for
every sampler; the CPU and GPU engines have kernels that draw the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nearfar.engine.problem import Problem
from nearfar.method.draws import Batch, Drawn, Known, draw_candidates
from nearfar.runtime.arrays import Bool, Floats, Int32, Int64, Integers
from nearfar.runtime.counter import Purpose, Source, permutation, stream

if TYPE_CHECKING:
    from nearfar.data.interactions import Interactions


class OneUser:
    """`Known` for a single user; user numbers are ignored."""

    def __init__(self, liked: Int32, n_items: int) -> None:
        self._has = np.zeros(n_items, np.bool_)
        self._has[liked] = True

    def own(self, users: Integers, items: Int64) -> Bool:
        """Return whether the user has the items."""
        return self._has[items]

    def shared(self, users: Integers, items: Int64) -> Bool:
        """Return whether the user has the items, as a single row."""
        return self._has[items][None]


class TrainingUsers:
    """`Known` for the users of some interactions."""

    def __init__(self, data: Interactions) -> None:
        self._data, self.own = data, data.contains

    def shared(self, users: Integers, items: Int64) -> Bool:
        """Mark the users' items, by iterating over their interactions only."""
        data, n = self._data, len(items)
        place = np.full(data.n_items, -1, np.int64)
        place[items] = np.arange(n)
        counts = data.user_counts[users]
        row = np.repeat(np.arange(len(users)), counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        theirs = data.items[data.indptr[users][row] + np.arange(len(row)) - before]
        known = np.zeros((len(users), n), np.bool_)
        there = place[theirs] >= 0
        known[row[there], place[theirs[there]]] = True
        return known[:, place[items]]  # an item may occur several times


def pairs_of(problem: Problem, step: int) -> tuple[Int64, Int64]:
    """Return the users and the positive items of the pairs of a step, in order."""
    data, batch = problem.interactions, problem.options.batch
    epoch, place = divmod(step, problem.steps_per_epoch)
    order = permutation(stream(problem.seed, Purpose.ORDER, epoch), data.n_pairs)
    chosen = order[place * batch : (place + 1) * batch]
    return problem.positive_users[chosen].astype(np.int64), data.items[chosen].astype(np.int64)


def candidates_of(problem: Problem, source: Source) -> Int64:
    """Return the items shared by all pairs of a step, in the order in which they are drawn."""
    needs = problem.options.sampler.needs
    return draw_candidates(needs, problem.n_negatives, problem.proposal, problem.support, source)


def draw(
    problem: Problem,
    source: Source,
    users: Integers,
    known: Known,
    candidates: Int64,
    compare: Callable[[Int64], Floats],
    first: int = 0,
) -> Drawn:
    """Draw the negatives of pairs as in the step identified by `source`.

    Parameters
    ----------
    problem : Problem
    source : Source
    users : int array of shape (L,)
        The users of the pairs, as passed to `known`.
    known : Known
    candidates : int64 array
        From `candidates_of`.
    compare : callable
        See `nearfar.method.draws.Batch`; called by samplers with a second stage.
    first : int
        The position of the first pair in the step. If pairs share candidates, the pairs of a step
        may be passed in parts; otherwise all of them must be passed together.
    """
    options = problem.options
    return options.sampler.draw(
        Batch(
            users, problem.n_negatives, problem.proposal, problem.support, candidates, source,
            known, compare, options.dim, first,
        )
    )  # fmt: skip

"""What a sampler needs of an engine, what it is given for a step, and what it gives back.

`draw_candidates` and `draw_own` are the two ways in which all samplers here draw items; what each
makes of them is its `draw`, see `nearfar.method.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np

from nearfar.method.proposal import AliasTable, different, proposed
from nearfar.runtime.arrays import Bool, Floats, Int32, Int64, Integers
from nearfar.runtime.counter import Purpose, Source

Kernel = Literal["independent", "distinct", "two-stage", "shared"]
"""The ways of drawing that engines have kernels for: those of `Uniform` and `Popularity`, of
``Popularity(distinct=True)``, of `TwoStage` and of `Shared`."""


class Needs(NamedTuple):
    """What a sampler needs of an engine."""

    usual: int = 5
    """|N_ij| where the user does not say how many."""
    shared: bool = False
    """All pairs of a step share their negatives; else each has its own."""
    candidates: int = 0
    """Items that a step draws for all its pairs to choose among, at most; 0 for none."""
    distinct: bool = False
    """What a step draws together differs: its candidates, its shared negatives, or without these
    the first attempts at all its places."""
    redraws: int = 0
    """How often a draw that hits a known positive is drawn again."""
    vectors: Literal["live", "initial"] | None = None
    """The vectors by which pairs choose among the candidates, if they do."""
    released_weight: bool = False
    """See `TwoStage`."""
    kernel: Kernel | None = None
    """The engines' kernels that draw the same; None if only `draw` does."""

    def n_candidates(self, negatives: int, n_support: int) -> int:
        """Count the items that all pairs of a step share; `n_support` can be drawn at all."""
        wanted = negatives if self.shared else self.candidates
        return min(wanted, n_support) if self.distinct else wanted

    @property
    def distinct_places(self) -> bool:
        """Whether the places of a step, not items that all pairs share, are filled differently."""
        return self.distinct and not self.shared and not self.candidates


class Known(Protocol):
    """What users have already, which is no negative for them."""

    def own(self, users: Integers, items: Int64) -> Bool:
        """Tell for each user and item, both (n,), whether the user has it."""
        ...

    def shared(self, users: Integers, items: Int64) -> Bool:
        """Tell for each user (L,) which of the items (C,) they have: (L, C), or (1, C) for all."""
        ...


class Batch(NamedTuple):
    """The pairs of a step, and all that their negatives depend on."""

    users: Integers
    """(L,) the user of each pair, by which `known` is asked."""
    negatives: int
    """|N_ij|."""
    table: AliasTable
    """Draws by the weight of `Sampler.proposal`."""
    support: Int32
    """The items of positive weight, ascending."""
    candidates: Int64
    """(C,) from `draw_candidates`."""
    source: Source
    """The streams of the step."""
    known: Known
    compare: Callable[[Int64], Floats]
    """Products of the pairs' positive items with items (C,), all at length 1: (L, C)."""
    dim: int
    """d."""
    first: int = 0
    """The place of the first pair in the step; not 0 only if pairs share candidates."""


class Drawn(NamedTuple):
    """Negatives of some pairs."""

    items: Int64
    """(L, n) of each pair, or (1, n) if all pairs share theirs."""
    allowed: Bool
    """(L, n) whether it is one: the pair's user does not have it, and the place is not empty."""
    weight: Floats | None = None
    """(L, C) the weights by which each pair chose among the candidates, if it did so."""


def draw_candidates(
    needs: Needs, negatives: int, table: AliasTable, support: Int32, source: Source
) -> Int64:
    """Draw the items that all pairs of a step share: of stage 1, or its negatives.

    Parameters
    ----------
    needs : Needs
        Those of the sampler.
    negatives : int
        |N_ij|.
    table, support
        As in `Batch`.
    source : Source
        The streams of the step.

    Returns
    -------
    int64 array of shape (C,)
        Empty if the sampler has none.
    """
    n = needs.n_candidates(negatives, len(support))
    key = source.stream(Purpose.CANDIDATE)
    if needs.distinct:
        return different(table, support, key, n)
    return proposed(table, key, np.arange(n))


def draw_own(batch: Batch, redraws: int, first: Int64 | None = None) -> Drawn:
    """Draw each pair's own negatives, again where one is known, at most `redraws` times.

    Parameters
    ----------
    batch : Batch
    redraws : int
    first : int64 array of shape (L n,), optional
        The first attempts, if they are not ordinary draws.

    Returns
    -------
    Drawn
        Place k of pair g is position g n + k of the stream.
    """
    n, key = batch.negatives, batch.source.stream(Purpose.NEGATIVE)
    places = np.arange(len(batch.users) * n)
    items = proposed(batch.table, key, places) if first is None else first
    user = np.repeat(batch.users, n)
    refused = batch.known.own(user, items)
    for attempt in range(1, redraws + 1):
        again = np.flatnonzero(refused)
        if not len(again):
            break
        items[again] = proposed(batch.table, key, again, attempt)
        refused[again] = batch.known.own(user[again], items[again])
    shape = (len(batch.users), n)
    return Drawn(items.reshape(shape), ~refused.reshape(shape))

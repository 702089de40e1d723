"""The interface of samplers: what they need from an engine, their input and their output.

`draw_candidates` and `draw_own` are the two ways in which all samplers here draw items; their
`draw` methods in `nearfar.method.sampling` use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np

from nearfar.method.proposal import AliasTable, different, proposed
from nearfar.runtime.arrays import Bool, Floats, Int32, Int64, Integers
from nearfar.runtime.counter import Purpose, Source

Kernel = Literal["independent", "distinct", "two-stage", "shared"]
"""The kinds of drawing for which engines have kernels: that of `Uniform` and `Popularity`, of
``Popularity(distinct=True)``, of `TwoStage` and of `Shared`."""


class Needs(NamedTuple):
    """What a sampler needs from an engine."""

    usual: int = 5
    """Default of |N_ij|, if the user does not set the number of negatives; see `negatives`."""
    shared: bool = False
    """Whether all pairs of a step share their negatives; otherwise each pair has its own."""
    candidates: int = 0
    """Maximum number of items drawn in a step as candidates for all its pairs; 0 for none."""
    distinct: bool = False
    """Whether the items drawn together in a step are distinct: its candidates, its shared
    negatives, or otherwise the first attempts at all its places."""
    redraws: int = 0
    """How often an item is drawn again if it is a known positive."""
    vectors: Literal["live", "initial"] | None = None
    """The vectors by which pairs choose among the candidates, if they choose."""
    released_weight: bool = False
    """See `TwoStage`."""
    towards: Literal["positive", "user"] = "positive"
    """What pairs compare the candidates with: their positive item, or their user."""
    sharpness: float = 1.0
    """See `TwoStage`."""
    kernel: Kernel | None = None
    """The engines' kernels that draw the same items; None if there are none."""

    def negatives(self, given: int | None, n_support: int) -> int:
        """Return |N_ij|: the number given, or the usual one, if `n_support` items can be drawn.

        Shared negatives are usually at most a fifth of those items, but 32 if there are so many:
        if a step draws most of the items, popular and rare ones are drawn alike, and the sampler's
        weight has no effect.
        """
        if given is not None:
            return given
        return min(self.usual, max(32, n_support // 5)) if self.shared else self.usual

    def n_candidates(self, negatives: int, n_support: int) -> int:
        """Return the number of items shared by all pairs, if `n_support` items can be drawn."""
        wanted = negatives if self.shared else self.candidates
        return min(wanted, n_support) if self.distinct else wanted

    @property
    def distinct_places(self) -> bool:
        """Whether the places of a step, rather than shared items, hold distinct items."""
        return self.distinct and not self.shared and not self.candidates


class Known(Protocol):
    """The items that users already have, which are never negatives for them."""

    def own(self, users: Integers, items: Int64) -> Bool:
        """Return for each pair of a user and an item, both (n,), whether the user has the item."""
        ...

    def shared(self, users: Integers, items: Int64) -> Bool:
        """Return which of the items (C,) each user (L,) has: (L, C), or (1, C) for all users."""
        ...


class Batch(NamedTuple):
    """The pairs of a step, and everything that their negatives depend on."""

    users: Integers
    """(L,) the user of each pair, as passed to `known`."""
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
    """Returns the products (L, C) of what `Needs.towards` names with items (C,), at length 1."""
    dim: int
    """d."""
    first: int = 0
    """The position of the first pair in the step; 0 unless pairs share candidates."""


class Drawn(NamedTuple):
    """Negatives of some pairs."""

    items: Int64
    """(L, n) for each pair, or (1, n) if all pairs share them."""
    allowed: Bool
    """(L, n) whether each item is a negative: a filled place, not an item of the user."""
    weight: Floats | None = None
    """(L, C) the weights by which each pair chose among the candidates, if any."""


def draw_candidates(
    needs: Needs, negatives: int, table: AliasTable, support: Int32, source: Source
) -> Int64:
    """Draw the items that all pairs of a step share: candidates of stage 1, or shared negatives.

    Parameters
    ----------
    needs : Needs
        The sampler's needs.
    negatives : int
        |N_ij|.
    table, support
        As in `Batch`.
    source : Source
        The streams of the step.

    Returns
    -------
    int64 array of shape (C,)
        Empty if the sampler shares no items.
    """
    n = needs.n_candidates(negatives, len(support))
    key = source.stream(Purpose.CANDIDATE)
    if needs.distinct:
        return different(table, support, key, n)
    return proposed(table, key, np.arange(n))


def draw_own(batch: Batch, redraws: int, first: Int64 | None = None) -> Drawn:
    """Draw each pair's own negatives; redraw known positives at most `redraws` times.

    Parameters
    ----------
    batch : Batch
    redraws : int
    first : int64 array of shape (L n,), optional
        The first attempts, if they are not independent draws.

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

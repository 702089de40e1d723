"""Fold-in: a point for a user or an item that the model was not trained on.

The training objective is minimised over that one point while all others stay fixed, by the model's
own optimiser, starting from the mean of the items that the user likes (or of the users who like the
item). A step takes all pairs of the new user at once, each with negatives drawn by the sampler as
in training, so it corresponds to an epoch in which no other point moves.

A user is only ever the user of a triplet. An item is the positive item for the users who like it,
and a negative in pairs of other users, as often as the sampler would draw it. Without the second
part it would lie among its users, too near to everyone similar to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache, partial

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.engine.negatives import OneUser, TrainingUsers, candidates_of, draw
from nearfar.method.draws import Drawn, Known
from nearfar.method.geometry import normalise
from nearfar.method.loss import through_normalisation
from nearfar.method.options import Options
from nearfar.runtime.arrays import Bool, Float32, Floats, Int32, Int64, Integers
from nearfar.runtime.counter import Purpose, Source, bits, stream

STEPS = 60
"""Steps of a fold-in; more steps change little, see benchmarks/README.md."""
MOST_STEPS = 100_000
"""More are refused: they would take minutes for one point."""
_KEPT_BYTES = 2**25
"""Size of the cache of shared negatives' points, kept from one fold-in to the next."""
_OTHER_PAIRS = 64
"""Training pairs in a step in which a new item is the negative."""


class Folding:
    """Computes points for new users and items from a trained model.

    Parameters
    ----------
    users, items : float32 arrays of shapes (N, d) and (M, d)
        The points.
    train : Interactions
    options : Options
    """

    def __init__(
        self, users: Float32, items: Float32, train: Interactions, options: Options
    ) -> None:
        self.users, self.items, self.train, self.options = users, items, train, options
        self.problem = Problem(train, options)
        self._known = TrainingUsers(train)
        self._candidates = lru_cache(maxsize=4 * STEPS)(partial(candidates_of, self.problem))
        row_bytes = max(self.problem.n_candidates, 1) * options.dim * 4
        self._shared_rows = lru_cache(maxsize=_KEPT_BYTES // row_bytes)(self._gather_shared)
        self._towards_user = options.sampler.needs.towards == "user"
        on_sphere = options.geometry == "sphere"
        self._offset = None if on_sphere else 0.5 * np.sum(items * items, axis=1)

    def user(self, liked: Int32, *, seed: int, steps: int = STEPS) -> Float32:
        """Return the float32 point (d,) of a user who likes the items `liked`, ascending rows."""
        pairs = len(liked)
        own = OneUser(liked, self.train.n_items)
        user, positive = np.zeros(pairs, np.int64), self.items[liked]
        start, live = positive.mean(axis=0), self.options.sampler.needs.vectors != "initial"

        def slope(point: Floats, step: int) -> Floats:
            own_anchors = np.broadcast_to(point if live else start, positive.shape)
            anchors = own_anchors if self._towards_user else None
            drawn = self.negatives(seed, step, own, user, liked, anchors)
            rows = self._rows(drawn.items, seed, step)
            near = self._scores(positive @ point, liked)
            far = self._scores(rows @ point, drawn.items.ravel()).reshape(drawn.items.shape)
            share = self._shares(near, far, drawn.allowed)
            part = share if len(drawn.items) == pairs else share.sum(axis=0)
            gradient: Floats = 2.0 * (part.ravel() @ rows - share.sum(axis=1) @ positive)
            return gradient

        return self._descend(start, slope, steps)

    def item(self, liked_by: Int32, *, seed: int, steps: int = STEPS) -> Float32:
        """Return the float32 point (d,) of an item that the users `liked_by` (ascending) like."""
        fans = self.users[liked_by]
        others = _Others(self, liked_by)
        nowhere = np.full(len(liked_by), -1, np.int64)

        def slope(point: Floats, step: int) -> Floats:
            anchors = None if self._towards_user else np.broadcast_to(point, fans.shape)
            drawn = self.negatives(seed, step, self._known, liked_by, nowhere, anchors)
            near = self._scores(fans @ point) - 0.5 * self._excess(point)
            far = self._products(fans, drawn.items, seed, step)
            share = self._shares(near, far, drawn.allowed)
            pull = share.sum(axis=1)
            rows, push = others.push(point, seed, step)
            gradient: Floats = 2.0 * (pull.sum() * point - pull @ fans)
            gradient += 2.0 * (push @ rows - push.sum() * point)
            return gradient

        return self._descend(fans.mean(axis=0), slope, steps)

    def negatives(
        self,
        seed: int,
        step: int,
        known: Known,
        users: Integers,
        items: Integers,
        anchors: Floats | None = None,
    ) -> Drawn:
        """Draw the negatives of pairs as step `step` of a training run with `seed` would.

        Parameters
        ----------
        seed, step : int
        known : Known
            The items that the users have, which are refused as negatives.
        users, items : int arrays of shape (L,)
            The pairs. With `anchors`, what stage 2 compares with the candidates need not exist.
        anchors : array of shape (L, d), optional
            The points that stage 2 compares with the candidates, if they are not the model's.
        """
        source = Source(seed, step)

        def compare(found: Int64) -> Floats:
            where = self._anchors(users, items) if anchors is None else normalise(anchors)
            return where @ self._compared[found].T

        return draw(self.problem, source, users, known, self._candidates(source), compare)

    def compare_as(self, other: Folding) -> None:
        """Use the vectors that stage 2 of the sampler compares in a folding of the same items.

        The initial vectors of the items depend on the number of users.
        """
        self._compared = other._compared

    # ------------------------------------------------------------------------- draws

    def _rows(self, items: Int64, seed: int, step: int) -> Float32:
        """Return the points of all drawn items, concatenated."""
        if self.options.sampler.needs.shared:
            return self._shared_rows(Source(seed, step))
        rows: Float32 = self.items[items.ravel()]
        return rows

    def _gather_shared(self, source: Source) -> Float32:
        rows: Float32 = self.items[self._candidates(source)]
        return rows

    @cached_property
    def _compared(self) -> Float32:
        """The (M, d) vectors of items that stage 2 compares: the current or the initial ones."""
        frozen = self._frozen
        return normalise(self.items) if frozen is None else frozen[-self.train.n_items :]

    @cached_property
    def _frozen(self) -> Float32 | None:
        return self.problem.frozen()

    def _anchors(self, users: Integers, items: Integers) -> Float32:
        """Return the vectors (L, d) of pairs that stage 2 compares with the candidates."""
        if not self._towards_user:
            return self._compared[items]
        return normalise(self.users[users]) if self._frozen is None else self._frozen[users]

    # --------------------------------------------------------------------- objective

    def _scores(self, products: Floats, items: Integers | None = None) -> Floats:
        """Convert products with items to scores, up to a term that depends only on the user."""
        if self._offset is None or items is None:
            return products
        scores: Floats = products - self._offset[items]
        return scores

    def _excess(self, point: Floats) -> float:
        """Return |v|^2 where it is a part of the score; 0 on the sphere."""
        return 0.0 if self._offset is None else float(point @ point)

    def _products(self, users: Float32, items: Int64, seed: int, step: int) -> Floats:
        """Score the shared (1, n) or own (L, n) items drawn in a step for users (L, d)."""
        rows = self._rows(items, seed, step).reshape(*items.shape, -1)
        products = users @ rows[0].T if len(items) == 1 else np.einsum("ld,lnd->ln", users, rows)
        return self._scores(products, items)

    def _shares(self, near: Floats, far: Floats, allowed: Bool) -> Floats:
        triplet = self.problem.triplet
        inside = triplet.margin - 2.0 * (near[:, None] - far)
        return triplet.shares(np.where(allowed, inside, -np.inf), self.train.n_items)

    def _descend(
        self, start: Floats, slope: Callable[[Floats, int], Floats], steps: int
    ) -> Float32:
        """Train one row, from `start`, with the same updates as `nearfar.engine.reference`."""
        options, optimiser = self.options, self.options.optimiser
        rows = np.zeros((1, optimiser.n_slots, options.dim))
        optimiser.start(rows)
        rows[0, 0] = start
        point = rows[0, 0] = self._point(rows[0, 0])
        mean = np.zeros_like(point)
        for t in range(1, steps + 1):
            gradient: Floats = slope(point.astype(np.float32), t - 1).astype(np.float64)[None]
            if options.geometry == "sphere":
                gradient = through_normalisation(gradient, rows[:, 0])
            optimiser.step(rows, gradient, t)
            if options.geometry == "ball":
                rows[:, 0] /= max(1.0, float(np.linalg.norm(rows[0, 0])))
            point = self._point(rows[0, 0])
            weight = 1.0 if options.averaging is None else options.averaging.weight(t)
            mean = mean + weight * (point - mean)
        return np.ascontiguousarray(self._point(mean), np.float32)

    def _point(self, row: Floats) -> Floats:
        """Return the point of a stored row (d,): of length 1 on the sphere."""
        length = float(np.sqrt(row @ row)) if self.options.geometry == "sphere" else 1.0
        point: Floats = row / (length or 1.0)
        return point


class _Others:
    """The pairs of other users, in which a new item may be drawn as the negative."""

    def __init__(self, folding: Folding, liked_by: Int32) -> None:
        self.folding = folding
        self.liked_by = liked_by
        counts = np.append(folding.train.item_counts, len(liked_by))
        weight = folding.options.sampler.proposal(counts)
        self.chance = float(weight[-1] / weight.sum())
        """Probability that one draw of the proposal is the new item."""
        self.no_items = OneUser(liked_by[:0], folding.train.n_items)

    def push(self, point: Floats, seed: int, step: int) -> tuple[Float32, Floats]:
        """Return users (R, d) and their factors (R,) in the item's gradient: push (u - v).

        R training pairs represent all of them. In each, the last negative is replaced by the item,
        weighted by the number of times that this would happen in an epoch.
        """
        folding, train = self.folding, self.folding.train
        key = stream(seed, Purpose.ORDER, step)
        pairs = (bits(key, np.arange(_OTHER_PAIRS)) % np.uint64(train.n_pairs)).astype(np.int64)
        users, items = train.pair_users()[pairs], train.items[pairs]
        drawn = folding.negatives(seed, step, folding._known, users, items)
        anchors, positives = folding.users[users], folding.items[items]
        near = folding._scores(np.einsum("rd,rd->r", anchors, positives), items)
        far = folding._products(anchors, drawn.items, seed, step).copy()
        far[:, -1] = anchors @ point - 0.5 * folding._excess(point)
        allowed = drawn.allowed.copy()
        allowed[:, -1] = ~np.isin(users, self.liked_by)
        share = folding._shares(near, far, allowed)[:, -1]
        times = self._times(point, users, items, Source(seed, step))
        return anchors, share * (times * (train.n_pairs / _OTHER_PAIRS))

    def _times(self, point: Floats, users: Int32, items: Int32, source: Source) -> Floats | float:
        """Return the expected number of times that each pair would draw the item."""
        folding, options = self.folding, self.folding.options
        places = folding.problem.n_candidates or folding.problem.n_negatives
        if not options.sampler.needs.candidates:
            return places * self.chance

        def compare(found: Int64) -> Floats:
            rows = folding._compared[found]
            rows[-1] = normalise(point[None])[0]
            return folding._anchors(users, items) @ rows.T

        weight = draw(
            folding.problem, source, users, self.no_items, folding._candidates(source), compare
        ).weight
        if weight is None:
            return folding.problem.n_negatives * self.chance
        whole = np.maximum(weight.sum(axis=1), np.finfo(np.float32).tiny)
        times: Floats = folding.problem.n_negatives * places * self.chance * weight[:, -1] / whole
        return times

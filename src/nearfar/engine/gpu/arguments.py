"""The records that only kernels in Triton take; see `nearfar.engine.gpu.launch`.

Triton specialises the fields of a record as it does arguments of their own: by the alignment of an
array, and by whether a number is 1 or a multiple of 16. A kernel is compiled once for each shape.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# ----------------------------------------------------------------------------------- plans


class TrainingPairs(NamedTuple):
    """The pairs to train on, and where their items begin among the rows."""

    users: Tensor
    items: Tensor
    n_pairs: int
    n_users: int


class EpochOrder(NamedTuple):
    """The permutation of an epoch, and how it is cut into steps."""

    base: int
    """Of the stream."""
    n_steps: int
    """Steps of an epoch."""
    n_planned: int
    """Steps of the plan that are not empty."""
    batch: int
    low: int
    """Bits of the low half, and masks of both halves; see `words.halves`."""
    low_mask: int
    high_mask: int


class KnownItems(NamedTuple):
    """The items of each user; see `device_plan.Data`."""

    indptr: Tensor
    items: Tensor


class ItemDraws(NamedTuple):
    """The proposal: an alias table, empty for the uniform distribution."""

    keep: Tensor
    other: Tensor
    n_items: int


class DrawStream(NamedTuple):
    """A stream by its base, and how many numbers are taken of it at each step."""

    base: int
    n: int


class RedrawRule(NamedTuple):
    """How negatives of a pair's own are drawn."""

    base: int
    redraws: int
    batch: int
    n_users: int


class DrawnNegatives(NamedTuple):
    """Where negatives are drawn, and the first attempts, if they are given."""

    step: Tensor
    entries: Tensor
    first: Tensor
    missed: Tensor


class NegativeShape(NamedTuple):
    """What `drawing.draw_negatives` is compiled for."""

    n: int
    wide: int
    pairs: int
    """Of a program."""
    steps: int
    """Of a binary search."""
    uniform: bool
    given: bool
    """Whether the first attempts are given."""


class OrderedCandidates(NamedTuple):
    """Candidates in ascending order, their places before, and which of them a user has."""

    ordered: Tensor
    place: Tensor
    mine: Tensor


class SearchShape(NamedTuple):
    """What `drawing.find_mine` is compiled for."""

    n: int
    width: int
    block: int
    steps: int


# ----------------------------------------------------------------------------------- steps


class RowShape(NamedTuple):
    """What `kernels.gather` is compiled for."""

    dim: int
    block: int
    slots: int
    drifts: bool
    ball: bool
    unit: bool


class LossTerms(NamedTuple):
    """Numbers of the loss, and of its batch."""

    margin: float
    temperature: float
    n_items: int
    batch: int


class PairShape(NamedTuple):
    """What the kernels that take a pair are compiled for."""

    n: int
    """Negatives of a pair, and the next power of two."""
    wide: int
    chunk: int
    """Negatives whose points are held at once."""
    dim: int
    block: int
    rank: bool
    soft: bool
    spread: bool


class Choosing(NamedTuple):
    """What the second stage chooses from, and where its choice goes."""

    products: Tensor
    mine: Tensor
    candidates: Tensor
    step: Tensor
    entries: Tensor
    missed: Tensor


class ChoiceRule(NamedTuple):
    """How the second stage chooses."""

    base: int
    n_users: int
    overflow_gap: float
    power: float


class ChoiceShape(NamedTuple):
    """What `drawing.choose` is compiled for."""

    n: int
    candidates: int
    wide: int
    at_once: int
    half_steps: int
    """See `nearfar.engine.spec.Spec`."""
    cut: bool
    released: bool


class Matrix(NamedTuple):
    """A matrix by its first entry and its strides."""

    first: Tensor
    row: int
    column: int


class ProductShape(NamedTuple):
    """What `moving.multiply` is compiled for: the inner dimension, and a tile."""

    inner: int
    high: int
    wide: int
    deep: int
    add: bool
    precision: str


class RowsNow(NamedTuple):
    """The rows of a step in order, and its time."""

    row: Tensor
    entry: Tensor
    step: Tensor
    pace: Tensor
    n_entries: int
    batch: int


class UpdateShape(NamedTuple):
    """What `moving.update` is compiled for."""

    width: int
    dim: int
    block: int
    few: int
    """Entries that are read first, and then at a time."""
    many: int
    slots: int
    sphere: bool
    ball: bool
    adam: bool
    adagrad: bool
    spread: bool
    extra: bool

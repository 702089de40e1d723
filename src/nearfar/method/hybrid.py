"""Hybrids: points that are learned from content and interactions together.

An item j with content x_j (a row of numbers, `nearfar.data.feature_space`) has the point ::

    p_j = normalise( g(x_j) + m_j delta_j ),      m_j ~ Bernoulli(1 - rho)

g is an encoder, and delta_j is what the content does not say. delta_j starts at 0 and is pulled
back to it: each step adds (decay / 2) |delta_j|^2 to the loss for every distinct item of the step
with m_j = 1, which is a Gaussian prior around g(x_j). m_j is drawn once for each step and item, a
hash of (seed, step, item), so a distinct item of a step has one point and its content passes the
encoder once. In an item without content m_j is always 1, there is no decay, and delta_j starts at a
random point, as without a hybrid. After training m_j is 1.

An item that nobody has used yet has delta_j = 0. Its point is g(x_j), on the same sphere as all
others, so one ranking can hold both. rho trains g to do without delta, as it has to for new items.

Users likewise: h(y_i) + m_i delta_i, with an encoder of their own.

References
----------
Volkovs, Yu & Poutanen, "DropoutNet", NeurIPS 2017, drops the learned part in this way; Agarwal &
Chen, "Regression-based latent factor models", KDD 2009, have the prior around a regression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nearfar.errors import OptionError
from nearfar.runtime.checks import a_callable, one_of, real, said, set_fields, whole

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Linear:
    """The linear encoder g(x) = sum_f x_f w_f, with a vector w_f for each column f of the features.

    The vectors are learned by the model's optimiser, a row each, at the cost of the columns that a
    step touches. They start in random directions of length 1, so g(x) has about length 1 if x has.
    """

    decay: float = 0.03
    """Pull of each vector to 0: adds decay / 2 |w_f|^2 to the loss of a step that touches w_f."""

    def __post_init__(self) -> None:
        set_fields(self, decay=real("Linear.decay", self.decay, least=0.0))


@dataclass(frozen=True)
class NotGiven:
    """Takes the place of a module's `build` in options that were read from a file."""

    name: str

    def __call__(self, dim: int) -> Any:
        """Raise, because the code of the module is not saved with a model."""
        raise OptionError(
            f"the model was trained with the module of {self.name}, which is not saved with it:"
            f" load it with CML.load(path, encoder={self.name.rpartition('.')[2]})."
        )


@dataclass(frozen=True)
class Module:
    """An encoder g of your own: any `torch.nn.Module`, over images, spectrograms, vectors or ids.

    It turns a batch of contents (n, ...) into vectors (n, d). Its weights are trained by the
    model's optimiser, at a rate of their own, with the gradients of its vectors. Those of a step's
    distinct items with content are computed together, once; a layer that normalises over the batch
    sees these items.

    Needs PyTorch, ``nearfar[torch]``.
    """

    build: Callable[[int], Any]
    """Called with d, returns a new `torch.nn.Module`. It is called under the seed of the run. A
    saved model has the module's weights, and of `build` only the name; see `nearfar.CML.load`."""
    learning_rate: float = 1e-3
    """The learning rate of the weights."""
    decay: float = 0.0
    """Pull of the weights to 0: adds decay / 2 |W|^2 to the loss of each step."""
    chunk: int | None = None
    """Items that are encoded at a time. With None a step's graph is of all its items; otherwise it
    is of one chunk, made a second time for its gradient: less memory for more time."""
    fresh: int | None = None
    """Of `Shared` negatives, how many a step encodes, in turn. The others enter by points that were
    encoded at most an epoch ago, without a gradient. With None all are encoded."""
    precision: Precision = "float32"
    """"bfloat16": the module computes in mixed precision, by `torch.autocast`."""

    def __post_init__(self) -> None:
        set_fields(
            self,
            build=a_callable("build", self.build),
            learning_rate=real("Module.learning_rate", self.learning_rate, above=0.0),
            decay=real("Module.decay", self.decay, least=0.0),
            chunk=None if self.chunk is None else whole("chunk", self.chunk),
            fresh=None if self.fresh is None else whole("fresh", self.fresh),
            precision=one_of("precision", self.precision, get_args(Precision)),
        )

    @property
    def name(self) -> str:
        """The name of `build`, for messages."""
        if isinstance(self.build, NotGiven):
            return self.build.name
        module = getattr(self.build, "__module__", "")
        named = getattr(self.build, "__qualname__", type(self.build).__qualname__)
        return f"{module}.{named}"


Encoder = Linear | Module
"""The encoders, which turn content into a vector."""

ENCODERS: tuple[type[Any], ...] = (Linear, Module)


@dataclass(frozen=True)
class Hybrid:
    """Points that are learned from content and interactions together; see the module docstring."""

    encoder: Encoder = Linear()
    """g, which turns the content of an item, or a user, into a vector."""
    id_dropout: float = 0.25
    """rho, the probability with which a step leaves delta out, 0 to 1; with 1 delta stays 0."""
    id_decay: float = 0.05
    """Pull of delta to 0."""
    gains: tuple[tuple[str, float], ...] = ()
    """How much each field of the features counts: pairs of its name and a positive number, 1 for
    those that are not named. A mapping is accepted."""

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, ENCODERS):
            hint = " (the class itself: add parentheses)" if isinstance(self.encoder, type) else ""
            raise OptionError(
                f"`encoder` must be Linear(...) or Module(...); got {said(self.encoder)}{hint}."
            )
        set_fields(
            self,
            id_dropout=real("id_dropout", self.id_dropout, least=0.0, most=1.0),
            id_decay=real("id_decay", self.id_decay, least=0.0),
            gains=_checked_gains(self.gains),
        )
        if self.gains and isinstance(self.encoder, Module):
            raise OptionError(
                f"`gains` are of the fields of Features, and a Module has none; got {self.gains!r}."
                " Omit them."
            )


def _checked_gains(gains: Any) -> tuple[tuple[str, float], ...]:
    """Return the gains as pairs, in the order of their names."""
    try:
        pairs = sorted((str(name), value) for name, value in dict(gains).items())
    except (TypeError, ValueError):
        raise OptionError(
            f"`gains` must be a mapping from a field to a positive number; got {said(gains)}."
        ) from None
    return tuple((name, real(f"gains[{name!r}]", value, above=0.0)) for name, value in pairs)

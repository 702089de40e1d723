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

from dataclasses import dataclass
from typing import Any

from nearfar.errors import OptionError
from nearfar.runtime.checks import real, said, set_fields


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


Encoder = Linear
"""The encoders, which turn content into a vector."""

ENCODERS: tuple[type[Any], ...] = (Linear,)


@dataclass(frozen=True)
class Hybrid:
    """Points that are learned from content and interactions together; see the module docstring."""

    encoder: Encoder = Linear()
    """g, which turns the content of an item, or a user, into a vector."""
    id_dropout: float = 0.5
    """rho, the probability with which a step leaves delta out, 0 to 1; with 1 delta stays 0."""
    id_decay: float = 0.05
    """Pull of delta to 0."""
    gains: tuple[tuple[str, float], ...] = ()
    """How much each field of the features counts: pairs of its name and a positive number, 1 for
    those that are not named. A mapping is accepted."""

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, Linear):
            hint = " (the class itself: add parentheses)" if isinstance(self.encoder, type) else ""
            raise OptionError(f"`encoder` must be Linear(...); got {said(self.encoder)}{hint}.")
        set_fields(
            self,
            id_dropout=real("id_dropout", self.id_dropout, least=0.0, most=1.0),
            id_decay=real("id_decay", self.id_decay, least=0.0),
            gains=_checked_gains(self.gains),
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

"""Presets of options: the published methods exactly, and one of nearfar's own.

``CML(presets.paper_2019())`` is the paper's model, ``CML(presets.paper_2019(), dim=64)`` the same
in 64 dimensions. Settings that the papers do not specify, mainly the number of epochs, are
arguments of `fit`.
"""

from __future__ import annotations

from typing import Literal

from nearfar.errors import OptionError
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import Adagrad, Adam
from nearfar.method.options import Options
from nearfar.method.prior import Prior
from nearfar.method.sampling import Popularity, Sampler, TwoStage, Uniform
from nearfar.runtime.checks import one_of, whole

SamplerName = Literal["uniform", "popularity", "two-stage"]
"""The three samplers that the paper compares."""


def paper_2019(
    sampler: SamplerName = "two-stage", *, negatives: int = 5, batch: int = 256, beta: float = 1.0
) -> Options:
    """Return the options of Tran et al., SIGIR 2019, as described in the paper.

    The three samplers are in section 3.2, with eq. 4 and, for the second stage, eq. 5; its p(s) is
    in section 3.1.

    Parameters
    ----------
    sampler : {"two-stage", "popularity", "uniform"}
    negatives : {1, 2, 5}
        lambda_g is 0.01 for one and two negatives and 0.001 for five.
    batch : int
        256, 1024 or 4096 in the paper.
    beta : float
        1.0 for Amazon movies and Echonest, 0.8 for Book-Crossing.

    Returns
    -------
    Options

    Notes
    -----
    With live vectors, as the paper describes, the second stage is so steep at d = 128 that it
    returns mostly false negatives. `released_2019` is what the authors' script does.

    Examples
    --------
    >>> options = paper_2019("two-stage", negatives=1)
    >>> options.dim, options.triplet.margin, options.spread_out.weight, options.sampler.candidates
    (128, 1.0, 0.01, 2000)
    """
    strength = {1: 0.01, 2: 0.01, 5: 0.001}.get(whole("negatives", negatives))
    if strength is None:
        raise OptionError(
            f"`negatives` must be 1, 2 or 5, for which the paper gives lambda_g; got {negatives!r}."
            f" For others use dataclasses.replace(paper_2019(), negatives=..., spread_out=...)."
        )
    samplers: dict[str, Sampler] = {
        "uniform": Uniform(),
        "popularity": Popularity(beta),
        "two-stage": TwoStage(2000, beta),
    }
    return Options(
        dim=128,
        geometry="sphere",
        sampler=_pick(samplers, sampler),
        negatives=negatives,
        batch=batch,
        triplet=Triplet(margin=1.0),
        spread_out=SpreadOut(strength),
        optimiser=Adam(learning_rate=1e-4),
        averaging=None,
        prior=None,
    )


def released_2019(
    sampler: SamplerName = "two-stage", *, negatives: int = 5, batch: int = 256, beta: float = 1.0
) -> Options:
    """Return the options of Tran et al., SIGIR 2019, as implemented in the authors' script.

    The script differs from the paper: the points are normalised only for the 2-stage sampler, there
    is no spread-out term, stage 2 compares the initial vectors, its weight overflows to a uniform
    choice where the positive item is a candidate, and popularity draws a batch's negatives without
    replacement. (Such a batch needs batch x negatives distinct items; training on a catalogue with
    fewer items raises `OptionError`.)

    One behaviour is not reproduced. After ten redraws the script kept a known positive as a
    negative; here such a place stays empty, and the second stage excludes known positives exactly.

    Parameters
    ----------
    sampler, negatives, batch, beta
        As in `paper_2019`; any number of negatives.

    Returns
    -------
    Options
    """
    samplers: dict[str, Sampler] = {
        "uniform": Uniform(redraws=10),
        "popularity": Popularity(beta, distinct=True, redraws=10),
        "two-stage": TwoStage(2000, beta, vectors="initial", released_weight=True),
    }
    chosen = _pick(samplers, sampler)
    return Options(
        dim=128,
        geometry="sphere" if sampler == "two-stage" else "free",
        sampler=chosen,
        negatives=negatives,
        batch=batch,
        triplet=Triplet(margin=1.0),
        optimiser=Adam(learning_rate=1e-4),
        averaging=None,
        prior=None,
    )


def cml_2017(
    *, dim: int = 100, negatives: int = 20, batch: int = 50_000, margin: float = 1.9
) -> Options:
    """Return the options of Hsieh et al., WWW 2017: unit ball, rank weight, covariance loss.

    The method is the paper's. The values, which the paper tunes for each data set, are those of the
    authors' script: 100 dimensions, 20 negatives, batches of 50,000, margin 1.9, Adagrad with
    learning rate 0.1 and an initial sum of squares of 0.1, covariance weight 0.1. All points start
    at length 1 instead of the script's Gaussian, whose rows have a length of about 1.

    Returns
    -------
    Options
    """
    return Options(
        dim=dim,
        geometry="ball",
        sampler=Uniform(),
        negatives=negatives,
        batch=batch,
        triplet=Triplet(margin=margin, rank_weight=True),
        decorrelate=Decorrelate(weight=0.1),
        optimiser=Adagrad(learning_rate=0.1, initial=0.1),
        averaging=None,
        prior=None,
    )


def long_tail(popularity: float = 0.5) -> Options:
    """Return the defaults with the popularity dial turned down: lists of less popular items.

    The training is that of the defaults. The same lists are those of the default model with
    ``recommend(..., popularity=0.5)``; here it is the setting that validation, evaluation and
    lists use if none is asked for.

    Parameters
    ----------
    popularity : float
        The setting of the dial: 1 is calibrated to the data, 0 is distance alone. On Last.fm 0.5
        has about 60 % of the popularity bias of 1.

    Returns
    -------
    Options
    """
    return Options(prior=Prior(popularity))


PRESETS = {
    "paper_2019": paper_2019,
    "released_2019": released_2019,
    "cml_2017": cml_2017,
    "long_tail": long_tail,
}
"""The presets by name."""


def _pick(samplers: dict[str, Sampler], name: str) -> Sampler:
    return samplers[one_of("sampler", name, samplers)]

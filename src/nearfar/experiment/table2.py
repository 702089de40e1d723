"""The rows of Table 2 of the paper: three samplers, three batches, three numbers of negatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from nearfar.experiment.cells import Setting
from nearfar.options import Options
from nearfar.presets import SamplerName, paper_2019, released_2019

NEGATIVES: Final = (1, 2, 5)
BATCHES: Final = (256, 1024, 4096)
PRESETS: Final = {"paper_2019": paper_2019, "released_2019": released_2019}
"""Whose settings the rows have."""


def rows(preset: str = "paper_2019", *, beta: float = 1.0, **changes: Any) -> tuple[Setting, ...]:
    """Give the 15 rows: uniform with all batches, popularity and 2-stage with batches of 256.

    Parameters
    ----------
    preset : {"paper_2019", "released_2019"}
        What the paper says, or what its script does.
    beta : float
        The exponent of the popularity: 1.0 for Amazon movies and Echonest in the paper, 0.8 for
        Book-Crossing.
    **changes
        Hyper-parameters to change in every row, by the names of `nearfar.Options`.

    Returns
    -------
    tuple of Setting

    Examples
    --------
    >>> rows()[0].name, rows()[-1].name
    ('uniform, 1 negative, batch 256', 'two-stage, 5 negatives, batch 256')
    """
    make = PRESETS[preset]
    shape: list[tuple[SamplerName, int, int]] = [
        ("uniform", negatives, batch) for negatives in NEGATIVES for batch in BATCHES
    ]
    samplers: tuple[SamplerName, ...] = ("popularity", "two-stage")
    shape += [(sampler, negatives, 256) for sampler in samplers for negatives in NEGATIVES]
    made = []
    for sampler, negatives, batch in shape:
        options: Options = make(sampler, negatives=negatives, batch=batch, beta=beta)
        plural = "" if negatives == 1 else "s"
        name = f"{sampler}, {negatives} negative{plural}, batch {batch}"
        made.append(Setting(name, replace(options, **changes)))
    return tuple(made)

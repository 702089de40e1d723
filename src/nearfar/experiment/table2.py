"""The rows of Table 2 of the paper: three samplers, three batches, three numbers of negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from nearfar.errors import OptionError
from nearfar.experiment.cells import Setting
from nearfar.method.options import Options
from nearfar.method.presets import SamplerName, cml_2017, paper_2019, released_2019
from nearfar.runtime.checks import listed, one_of, real

SAMPLERS: Final[tuple[SamplerName, ...]] = ("uniform", "popularity", "two-stage")
NEGATIVES: Final = (1, 2, 5)
BATCHES: Final = (4096, 1024, 256)
"""The batch sizes of uniform sampling; the other two samplers have batches of 256."""
METHODS: Final = ("paper_2019", "released_2019", "cml_2017")
"""The presets that have rows."""


def rows(
    preset: str = "paper_2019",
    *,
    samplers: Sequence[SamplerName] = SAMPLERS,
    negatives: Sequence[int] = NEGATIVES,
    batches: Sequence[int] = BATCHES,
    beta: float = 1.0,
    **changes: Any,
) -> tuple[Setting, ...]:
    """Return the 15 rows in the paper's order.

    Uniform sampling with 1, 2 and 5 negatives, each in batches of 4096, 1024 and 256; popularity
    and then 2-stage sampling with 1, 2 and 5 negatives in batches of 256.

    Parameters
    ----------
    preset : {"paper_2019", "released_2019", "cml_2017"}
        The options of the paper, those of its script (names then start with "released"), or the
        single row of CML: 20 uniform negatives in batches of 50,000.
    samplers, negatives, batches : sequence
        Return only the rows with one of these.
    beta : float
        The exponent of the popularity: 1.0 for Amazon movies and Echonest in the paper, 0.8 for
        Book-Crossing.
    **changes
        Hyper-parameters to change in every row, by the names of `nearfar.Options`.

    Returns
    -------
    tuple of Setting

    Raises
    ------
    OptionError
        No row matches, or a value is not allowed.

    Examples
    --------
    >>> rows()[0].name, rows()[-1].name
    ('uniform, 1 negative, batch 4096', 'two-stage, 5 negatives, batch 256')
    """
    preset, beta = one_of("preset", preset, METHODS), real("beta", beta)
    samplers, negatives, batches = (
        listed("samplers", samplers, "names"),
        listed("negatives", negatives, "whole numbers"),
        listed("batches", batches, "whole numbers"),
    )
    known = [field.name for field in fields(Options)]
    for name in changes:
        one_of("changes", name, known)
    if preset == "cml_2017":
        options = cml_2017()
        name = _name("CML 2017", options.n_negatives, options.batch)
        return (Setting(name, replace(options, **changes)),)
    make = {"paper_2019": paper_2019, "released_2019": released_2019}[preset]
    made = []
    for sampler in SAMPLERS:
        for n in NEGATIVES:
            for batch in BATCHES if sampler == "uniform" else BATCHES[-1:]:
                if sampler in samplers and n in negatives and batch in batches:
                    options = make(sampler, negatives=n, batch=batch, beta=beta)
                    whose = "released " if preset == "released_2019" else ""
                    name = _name(whose + sampler, n, batch)
                    made.append(Setting(name, replace(options, **changes)))
    if not made:
        raise OptionError(
            f"No row of the table has one of the samplers {samplers}, of the negatives "
            f"{negatives} and of the batches {batches}. There are {list(SAMPLERS)}, "
            f"{list(NEGATIVES)} and {list(BATCHES)}, the larger batches for uniform sampling only."
        )
    return tuple(made)


def _name(method: str, negatives: int, batch: int) -> str:
    return f"{method}, {negatives} negative{'' if negatives == 1 else 's'}, batch {batch}"

"""The rows of Table 2 of the paper: three samplers, three batches, three numbers of negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from nearfar.errors import OptionError
from nearfar.experiment.cells import Setting
from nearfar.method.options import Options
from nearfar.method.presets import SamplerName, cml_2017, paper_2019, released_2019
from nearfar.method.sampling import TwoStage
from nearfar.runtime.checks import an_instance, listed, one_of, real

SAMPLERS: Final[tuple[SamplerName, ...]] = ("uniform", "popularity", "two-stage")
NEGATIVES: Final = (1, 2, 5)
BATCHES: Final = (4096, 1024, 256)
"""The batch sizes of uniform sampling; the other two samplers have batches of 256."""
METHODS: Final = ("paper_2019", "released_2019", "cml_2017")
"""The presets that have rows."""
SECOND_STAGE: Final = tuple(field.name for field in fields(TwoStage) if field.name != "beta")
"""What can be changed in the rows of 2-stage sampling only."""


def rows(
    preset: str = "paper_2019",
    *,
    samplers: Sequence[SamplerName] = SAMPLERS,
    negatives: Sequence[int] = NEGATIVES,
    batches: Sequence[int] = BATCHES,
    beta: float = 1.0,
    two_stage: Mapping[str, Any] | None = None,
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
        Book-Crossing. Another value than 1.0 is part of the names of the rows.
    two_stage : mapping, optional
        Parameters of `nearfar.TwoStage` to change in its rows, which are then named after them.
    **changes
        Hyper-parameters to change in every row, by the names of `nearfar.Options`.

    Returns
    -------
    tuple of Setting

    Raises
    ------
    OptionError
        No row matches, `two_stage` is given but there is no such row, or a value is not allowed.

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
    second = dict(an_instance("two_stage", {} if two_stage is None else two_stage, Mapping))
    for name in second:
        one_of("two_stage", name, SECOND_STAGE)
    wanted = [
        (sampler, n, batch)
        for sampler in SAMPLERS
        for n in NEGATIVES
        for batch in (BATCHES if sampler == "uniform" else BATCHES[-1:])
        if sampler in samplers and n in negatives and batch in batches
    ]
    if preset == "cml_2017":
        made = [Setting(_name("CML 2017", 20, 50_000), cml_2017(negatives=20, batch=50_000))]
    else:
        made = [_row(preset, *place, beta, second) for place in wanted]
    if second and not any(row.options.sampler.needs.kernel == "two-stage" for row in made):
        raise OptionError(
            f"`two_stage` changes rows of 2-stage sampling ({', '.join(second)}), and there is no "
            "such row. Omit it, or ask for the sampler 'two-stage' in batches of 256."
        )
    if not made:
        raise OptionError(
            f"No row of the table has one of the samplers {samplers}, of the negatives "
            f"{negatives} and of the batches {batches}. There are {list(SAMPLERS)}, "
            f"{list(NEGATIVES)} and {list(BATCHES)}, the larger batches for uniform sampling only."
        )
    return tuple(replace(row, options=replace(row.options, **changes)) for row in made)


def _row(
    preset: str,
    sampler: SamplerName,
    negatives: int,
    batch: int,
    beta: float,
    second: Mapping[str, Any],
) -> Setting:
    make = {"paper_2019": paper_2019, "released_2019": released_2019}[preset]
    options = make(sampler, negatives=negatives, batch=batch, beta=beta)
    told = {} if beta == 1.0 or sampler == "uniform" else {"beta": beta}
    if sampler == "two-stage":
        its: Any = options.sampler
        options = replace(options, sampler=replace(its, **second))
        told |= second
    whose = "released " if preset == "released_2019" else ""
    return Setting(_name(whose + sampler + _in_brackets(told), negatives, batch), options)


def _name(method: str, negatives: int, batch: int) -> str:
    return f"{method}, {negatives} negative{'' if negatives == 1 else 's'}, batch {batch}"


def _in_brackets(changes: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in changes.items())
    return f" ({told})" if told else ""

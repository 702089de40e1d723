"""Choice of a learning rate on a validation part: the next one to try, and the best one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nearfar.evaluation.metrics import REGISTRY
from nearfar.experiment.cells import Outcome
from nearfar.training.schedule import Schedule


def next_rate(rates: Sequence[float], tried: Mapping[float, Outcome | None]) -> float | None:
    """Return the learning rate to try next, or None if the best has no untried neighbour.

    Parameters
    ----------
    rates : sequence of float
        All candidates.
    tried : mapping of float to Outcome or None
        The outcomes of the candidates tried so far; None if the run failed.
    """
    ladder = sorted(set(rates))
    best = chosen_rate(tried)
    if best is None:  # none tried or all failed: from the middle downwards until one succeeds
        return next((rate for rate in ladder[len(ladder) // 2 :: -1] if rate not in tried), None)
    at = ladder.index(best)
    neighbours = [ladder[i] for i in (at + 1, at - 1) if 0 <= i < len(ladder)]
    return next((rate for rate in neighbours if rate not in tried), None)


def chosen_rate(tried: Mapping[float, Outcome | None]) -> float | None:
    """Return the learning rate with the best validation metric, the smaller if tied, or None.

    Parameters
    ----------
    tried : mapping of float to Outcome or None
        The outcome of each; None if the run failed.
    """
    best: tuple[float, float] | None = None
    for rate in sorted(tried):
        if (outcome := tried[rate]) is None:
            continue
        value, schedule = validated(outcome), Schedule(**outcome.cell["schedule"])
        if value is not None and (best is None or schedule.improves(value, best[0])):
            best = value, rate
    return None if best is None else best[1]


def validated(outcome: Outcome) -> float | None:
    """Return the best value on the validation part of the deciding metric, or None."""
    metric = outcome.cell["schedule"]["metric"]
    column = outcome.history[f"validation_{metric}"].drop_nulls().drop_nans()
    best: Any = column.min() if REGISTRY[metric].lower_is_better else column.max()
    return None if best is None else float(best)


def rate_of(outcome: Outcome) -> float:
    """Return the learning rate that an outcome was trained with."""
    return float(outcome.cell["setting"]["options"]["optimiser"]["learning_rate"])


def with_chosen_rates(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Separate outcomes with the learning rate that is the best on fold 0 from the others.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of one data set, split and trained in the same way.

    Returns
    -------
    chosen, others : list of Outcome
    """
    everything = list(outcomes)
    tried: dict[str, dict[float, Outcome | None]] = {}
    for outcome in everything:
        if outcome.cell["fold"] == 0:
            tried.setdefault(_without_rate(outcome), {})[rate_of(outcome)] = outcome
    best = {setting: chosen_rate(rates) for setting, rates in tried.items()}
    chosen: list[Outcome] = []
    others: list[Outcome] = []
    for outcome in everything:
        rate = best.get(_without_rate(outcome))  # None if its fold 0 has not been computed
        (chosen if rate in (None, rate_of(outcome)) else others).append(outcome)
    return chosen, others


def _without_rate(outcome: Outcome) -> str:
    setting = outcome.cell["setting"]
    optimiser = setting["options"]["optimiser"] | {"learning_rate": None}
    return json.dumps([setting["name"], setting["options"] | {"optimiser": optimiser}],
                      sort_keys=True)  # fmt: skip

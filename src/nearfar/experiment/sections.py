"""What there is to say in a report: the results of a folder, part by part, and facts about each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nearfar.errors import OptionError
from nearfar.experiment.cells import Outcome
from nearfar.experiment.paper import PaperData
from nearfar.experiment.rates import with_chosen_rates
from nearfar.experiment.tables import (
    Row,
    Which,
    comparable,
    layout,
    longest,
    options_of,
    summary,
    way_of,
)
from nearfar.version import VERSION

COMPARED: Final = ("map", "ndcg")
"""The figures that settings are compared by."""
COMPARISONS: Final = "-significance"
"""What the name of a part's file of comparisons ends with."""
WHEN: Final[dict[Which, str]] = {"best": "At the best epoch", "last": "At the last epoch"}
"""The headings of the two tables of a part."""


@dataclass(frozen=True)
class Part:
    """The outcomes of one data set, cut and trained in one way: what can be compared."""

    title: str
    """The name of the data set, and what else tells it from other parts."""
    file: str
    """Name of its files, without the end."""
    outcomes: list[Outcome]
    """Those with the learning rates that were chosen; names of settings are distinct."""
    others: list[Outcome]
    """Those with other learning rates, whose test figures are not reported."""
    paper: PaperData | None
    """Whose figures of the paper are shown beside those of the best epoch."""

    def rows(self, which: Which) -> list[Row]:
        """Give the rows of the table."""
        return layout(summary(self.outcomes, which), self.paper if which == "best" else None)


def parts_of(outcomes: Sequence[Outcome], paper: Mapping[str, PaperData]) -> list[Part]:
    """Part outcomes by data set and by how they were cut and trained, in the order of names.

    Parameters
    ----------
    outcomes : sequence of Outcome
    paper : mapping of str to {"amazon", "book-crossing", "echonest"}
        For the names of data sets, whose figures of the paper to show beside.

    Returns
    -------
    list of Part
        With distinct titles and files.

    Raises
    ------
    OptionError
        `paper` names a data set without a part.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(longest(outcomes), key=lambda one: str(one.cell["data"])):
        groups.setdefault(json.dumps(way_of(outcome), sort_keys=True), []).append(outcome)
    kept = list(groups.values())
    known = {str(group[0].cell["data"]) for group in kept}
    if unknown := sorted(set(paper) - known):
        raise OptionError(
            f"`paper` must be for data sets that have results ({', '.join(sorted(known))}); got "
            f"{unknown[0]!r}."
        )
    parts: list[Part] = []
    for title, group in zip(_titles(kept), kept, strict=True):
        taken = {f"{part.file}{end}".casefold() for part in parts for end in ("", COMPARISONS)}
        file = _file_name(title, taken)
        chosen, others = with_chosen_rates(group)
        whose = paper.get(str(group[0].cell["data"]))
        parts.append(Part(title, file, comparable(chosen), others, whose))
    return parts


def _titles(groups: Sequence[Sequence[Outcome]]) -> list[str]:
    """Name each group by its data set and, if others have the same, by what differs from them."""
    ways = [way_of(group[0]) | {"data": str(group[0].cell["data"])} for group in groups]
    titles = []
    for way in ways:
        same = [other for other in ways if other["data"] == way["data"]]
        told = [f"{name} {way[name]}" for name in way if len({str(one[name]) for one in same}) > 1]
        titles.append(way["data"] + (f" ({', '.join(told)})" if told else ""))
    return titles


def _file_name(title: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "data"
    name, number = plain, 1
    while name.casefold() in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


def how_it_was_made(part: Part, versions: Sequence[str]) -> dict[str, str]:
    """Say in words what all rows have in common."""
    cell = part.outcomes[0].cell
    plan = cell["schedule"]
    end = "never early" if plan["patience"] is None else (
        f"after {plan['patience']} evaluations without a new best"
    )  # fmt: skip
    everything = [*part.outcomes, *part.others]
    caps = sorted({int(outcome.cell["schedule"]["epochs"]) for outcome in everything})
    most = " or ".join(map(str, caps))
    hours = sum(outcome.machine_seconds for outcome in everything) / 3600
    made = {
        "data": str(cell["data"]),
        "fingerprint of the data": str(cell["fingerprint"]),
        "folds": f"{cell['folds']}, of which {len({o.cell['fold'] for o in part.outcomes})} used",
        "seed": str(cell["seed"]),
        "validation part": f"{cell['validation']:g} of each user's training interactions",
        "schedule": f"at most {most} epochs, evaluated every {plan['every']}; the best "
        f"by {plan['metric']}@{plan['k']} on the validation part; stopped {end}",
        "runs": f"{len(part.outcomes)}, and {len(part.others)} with learning rates that were not "
        "chosen",
        "processor time": f"{hours:.2f} hours in all",
        "computed by": "nearfar " + ", ".join(versions),
        "reported by": f"nearfar {VERSION}",
    }
    return made | {name: text for name, text in in_common(part).items() if name not in made}


def in_common(part: Part) -> dict[str, str]:
    """Give the options that are the same in all rows."""
    flat = [flat_options(outcome) for outcome in part.outcomes]
    return {
        name: value
        for name, value in flat[0].items()
        if all(other.get(name) == value for other in flat)
    }


def flat_options(outcome: Outcome) -> dict[str, str]:
    """Give options as text, those of a part as ``sampler.beta``."""
    flat = {}
    for name, value in options_of(outcome).items():
        if isinstance(value, Mapping):
            flat[name] = str(value["kind"])
            flat |= {f"{name}.{key}": str(one) for key, one in value.items() if key != "kind"}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def incomplete(part: Part) -> str:
    """Name the rows that lack folds which others have."""
    found = summary(part.outcomes)
    most = max(found["folds"].to_list())
    lacking = found.filter(pl.col("folds") < most).select("setting", "folds").rows()
    if not lacking:
        return ""
    rows = "; ".join(f"{name}: {folds} of {most}" for name, folds in lacking)
    return f"Not all folds are there, so these rows are means over fewer: {rows}."


def warned(part: Part) -> list[str]:
    """Say of which rows training gave a warning, each with the first one that it gave."""
    said: dict[str, list[str]] = {}
    for outcome in sorted(part.outcomes, key=lambda one: int(one.cell["fold"])):
        said.setdefault(str(outcome.cell["setting"]["name"]), []).extend(outcome.warnings[:1])
    order = summary(part.outcomes)["setting"]
    return [
        f"{name} (in {len(said[name])} of the folds): {said[name][0]}"
        for name in order
        if said[name]
    ]


def caption_of(part: Part, which: Which) -> str:
    """Say what the table of an epoch shows, and what its emphasis means."""
    plan = part.outcomes[0].cell["schedule"]
    return (
        f"{part.title}: mean ± standard deviation over folds, lists of {plan['k']}. "
        f"{WHEN[which]}. Bold: the best; bold italic: the best of uniform sampling "
        "(MMR: the lowest)."
    )

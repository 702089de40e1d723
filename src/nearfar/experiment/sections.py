"""The contents of a report: the results of a folder, part by part, and descriptions of each."""

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
    versions_of,
    way_of,
)
from nearfar.version import VERSION

COMPARED: Final = ("map", "ndcg")
"""The metrics by which settings are compared."""
COMPARISONS: Final = "-significance"
"""The end of the name of a part's file of comparisons."""
Comparisons = dict[tuple[Which, Which], pl.DataFrame]
"""Comparisons by the versions that are a and b; see `nearfar.experiment.significance`."""
WHEN: Final[dict[Which, str]] = {
    "best": "At the best epoch",
    "prior": "At the best epoch, with the popularity prior",
    "last": "At the last epoch",
}
"""The headings of the tables of a part."""


@dataclass(frozen=True)
class Part:
    """The comparable outcomes: of one data set, split and trained in the same way."""

    title: str
    """The name of the data set, and the differences from other parts."""
    file: str
    """The name of its files, without the suffix."""
    outcomes: list[Outcome]
    """Outcomes with the chosen learning rates; names of settings are distinct."""
    others: list[Outcome]
    """Outcomes with other learning rates, whose test metrics are not reported."""
    paper: PaperData | None
    """The data set of the paper whose metrics are shown with those of the best epoch."""

    @property
    def versions(self) -> list[Which]:
        """The tables of the part, in order; older outcomes have none of "prior"."""
        return versions_of(self.outcomes)

    def rows(self, which: Which) -> list[Row]:
        """Return the rows of the table."""
        return layout(summary(self.outcomes, which), self.paper if which == "best" else None)


def parts_of(outcomes: Sequence[Outcome], paper: Mapping[str, PaperData]) -> list[Part]:
    """Group outcomes by data set and by split and training, in the order of names.

    Parameters
    ----------
    outcomes : sequence of Outcome
    paper : mapping of str to {"amazon", "book-crossing", "echonest"}
        From the names of data sets to the data set of the paper to compare with.

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
    """Name each group by its data set and, if others have the same, by the differences."""
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
    """Return a description of what all rows have in common."""
    cell = part.outcomes[0].cell
    plan = cell["schedule"]
    end = "never early" if plan["patience"] is None else (
        f"after {plan['patience']} evaluations without improvement"
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
        "CPU time": f"{hours:.2f} hours in total",
        "computed by": "nearfar " + ", ".join(versions),
        "reported by": f"nearfar {VERSION}",
    }
    return made | {name: text for name, text in in_common(part).items() if name not in made}


def in_common(part: Part) -> dict[str, str]:
    """Return the options that are the same in all rows."""
    flat = [flat_options(outcome) for outcome in part.outcomes]
    return {
        name: value
        for name, value in flat[0].items()
        if all(other.get(name) == value for other in flat)
    }


def flat_options(outcome: Outcome) -> dict[str, str]:
    """Return options as text; the name of an option of a part is like ``sampler.beta``."""
    flat = {}
    for name, value in options_of(outcome).items():
        if isinstance(value, Mapping):
            flat[name] = str(value["kind"])
            flat |= {f"{name}.{key}": str(one) for key, one in value.items() if key != "kind"}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def incomplete(part: Part) -> str:
    """Return a note on rows that lack folds, or "" if there are none."""
    found, notes = summary(part.outcomes), []
    most = max(found["folds"].to_list())
    lacking = found.filter(pl.col("folds") < most).select("setting", "folds").rows()
    if lacking:
        rows = "; ".join(f"{name}: {folds} of {most}" for name, folds in lacking)
        notes.append(f"Some folds are missing; these rows are means over fewer folds: {rows}.")
    if "prior" in part.versions:
        have = dict(summary(part.outcomes, "prior").select("setting", "folds").iter_rows())
        tested = found.select("setting", "folds").rows()
        fewer = [(name, have.get(name, 0), n) for name, n in tested if have.get(name, 0) < n]
        rows = "; ".join(f"{name}: {folds} of {n}" for name, folds, n in fewer)
        notes += [f"{_WITHOUT_PRIOR}: {rows}."] if fewer else []
    return " ".join(notes)


_WITHOUT_PRIOR: Final = (
    "These rows are not in the table with the popularity prior, or with fewer folds, because their "
    "options have a prior, or because they were computed before there was one (remove a cell to "
    "compute it again)"
)


def warned(part: Part) -> list[str]:
    """Return a note for each row whose training raised warnings, with the first warning."""
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
    """Return the caption of a table: its contents and the meaning of its emphasis."""
    plan = part.outcomes[0].cell["schedule"]
    prior = (
        "gamma log f is added to the scores, f being the training interactions of the item and "
        f"gamma the best by {plan['metric']}@{plan['k']} on the validation part of each fold. "
        if which == "prior"
        else ""
    )
    return (
        f"{part.title}: mean ± standard deviation over folds, lists of {plan['k']}. "
        f"{WHEN[which]}. {prior}Bold: the best; bold italic: the best of uniform sampling "
        "(MMR: the lowest)."
    )

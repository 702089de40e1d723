"""The report of all results in a folder: a table for each data set, and one page with everything.

This module reads outcomes and writes files; the contents are in `nearfar.experiment.sections`, the
page in `nearfar.experiment.page`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import polars as pl

from nearfar.errors import EmptyDataError, StoreError
from nearfar.experiment.cells import load_all
from nearfar.experiment.page import page
from nearfar.experiment.paper import PaperData
from nearfar.experiment.sections import (
    COMPARED,
    COMPARISONS,
    WHEN,
    Comparisons,
    Part,
    caption_of,
    how_it_was_made,
    incomplete,
    parts_of,
    warned,
)
from nearfar.experiment.significance import all_pairs, each_setting
from nearfar.experiment.tables import Which, name_of, summary, tidy
from nearfar.experiment.writers import escape_markdown, latex, markdown
from nearfar.runtime import store
from nearfar.runtime.checks import an_instance, local_path
from nearfar.runtime.forks import check_fork


def write_report(
    results: str | PathLike[str], *, paper: Mapping[str, PaperData] | None = None
) -> list[Path]:
    """Write the report of all outcomes below ``results/cells`` to the folder `results`.

    ``<data>.csv`` has all metrics in full precision, ``<data>.md`` and ``<data>.tex`` the tables,
    ``<data>-significance.csv`` the comparisons of all pairs of settings, and ``index.html`` is the
    page. Results of one data set that cannot be compared, for example because their seeds differ,
    are written to separate files, named after the difference.

    Outcomes with metrics of "prior" have one more table, and further comparisons: of all pairs with
    the prior, and of each setting with it to the same without (``which_a`` and ``which_b``).

    Parameters
    ----------
    results : path
        The folder of a grid.
    paper : mapping of str to {"amazon", "book-crossing", "echonest"}, optional
        From the names of data sets to the data set of the paper to compare with.

    Returns
    -------
    list of Path
        The files, the page last. Existing files of these names are replaced.

    Raises
    ------
    EmptyDataError
        The folder has no cells, computed or failed.
    OptionError
        `paper` names a data set without results, or one that the paper does not have.
    StoreError
        An outcome cannot be read, or a file cannot be written.
    """
    check_fork()
    folder = local_path(results, "results")
    paper = an_instance("paper", {} if paper is None else paper, Mapping)
    outcomes, failures = load_all(folder), _failures(folder)
    parts = parts_of(outcomes, paper)
    if not parts and not failures:
        raise EmptyDataError(
            f"{str(folder)!r} has no cells, so there is nothing to report. Pass the folder "
            "of a grid that has been run."
        )
    texts, contents, versions = {}, [], _versions(folder)
    for part in parts:
        compared = _comparisons(part)
        made = how_it_was_made(part, versions)
        texts[f"{part.file}.csv"] = tidy(part.outcomes).write_csv()
        texts[f"{part.file}.md"] = _markdown(part, made)
        texts[f"{part.file}.tex"] = _latex(part)
        texts[f"{part.file}{COMPARISONS}.csv"] = _in_one(compared).write_csv()
        contents.append((part, compared, made))
    texts["index.html"] = page(contents, failures)
    for name, text in texts.items():
        _write(folder / name, text)
    return [folder / name for name in texts]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"Writing {str(path)!r} failed: {error}. Check the free space and the permissions."
        ) from error


# ------------------------------------------------------------------------------------- input


def _users(part: Part, which: Which) -> dict[str, pl.DataFrame]:
    """Return for each setting, in the order of the table, the metrics of each user in each fold."""
    users = {}
    for name in summary(part.outcomes, which)["setting"]:
        own = [o for o in part.outcomes if name_of(o) == name and which in o.per_user]
        users[name] = pl.concat(
            o.per_user[which].select("user_id", *COMPARED, fold=pl.lit(o.cell["fold"]))
            for o in sorted(own, key=lambda o: int(o.cell["fold"]))
        )
    return users


def _comparisons(part: Part) -> Comparisons:
    """Compare all rows; those with the prior; and each row with the prior to the same without."""
    best = _users(part, "best")
    found: Comparisons = {("best", "best"): all_pairs(best, COMPARED)}
    if "prior" in part.versions:
        prior = _users(part, "prior")
        found["prior", "prior"] = all_pairs(prior, COMPARED)
        found["prior", "best"] = each_setting(prior, best, COMPARED)
    return found


def _in_one(compared: Comparisons) -> pl.DataFrame:
    """Put comparisons into one table, with the versions of a and of b."""
    return pl.concat(
        frame.select(
            "a", pl.lit(one).alias("which_a"), "b", pl.lit(other).alias("which_b"),
            pl.exclude("a", "b"),
        )
        for (one, other), frame in compared.items()
    )  # fmt: skip


def _failures(folder: Path) -> list[dict[str, str]]:
    """Read the records of failed cells; an unreadable record is listed as such."""
    found = []
    for file in sorted((folder / "failed").glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
            cell = record["cell"]
            rate = cell["setting"]["options"]["optimiser"]["learning_rate"]
            what = f"{cell['data']}: {cell['setting']['name']}, fold {int(cell['fold']) + 1}"
            what += f", learning rate {rate:g}"
            error, trace = str(record["error"]), str(record["traceback"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
            what, error, trace = file.name, f"this record cannot be read ({problem!r})", ""
        found.append({"what": what, "error": error, "traceback": trace})
    return found


def _versions(folder: Path) -> list[str]:
    """Return the versions of nearfar that computed the outcomes."""
    manifests = (folder / "cells").glob(f"*/{store.MANIFEST}")
    return sorted({str(json.loads(file.read_bytes())["nearfar"]) for file in manifests})


# ------------------------------------------------------------------------- Markdown and LaTeX


def _markdown(part: Part, made: Mapping[str, str]) -> str:
    lines = [f"# {escape_markdown(part.title)}\n"]
    for which in part.versions:
        lines += [f"## {WHEN[which]}\n", escape_markdown(caption_of(part, which)) + "\n"]
        lines.append(markdown(part.rows(which)))
    if note := incomplete(part):
        lines.append(escape_markdown(note) + "\n")
    if said := warned(part):
        lines.append("## Warnings\n")
        lines.append("\n".join(f"- {escape_markdown(text)}" for text in said) + "\n")
    lines.append("## How it was made\n")
    lines += ["\n".join(f"- {name}: {escape_markdown(text)}" for name, text in made.items())]
    return "\n".join(lines) + "\n"


def _latex(part: Part) -> str:
    note = incomplete(part)
    tables = [
        latex(part.rows(which), f"{caption_of(part, which)} {note}") for which in part.versions
    ]
    return "% \\usepackage{booktabs}\n" + "\n".join(tables)

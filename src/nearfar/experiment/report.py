"""The report of all results in a folder: a table for each data set, and one page with everything.

The page is a single file without scripts or anything that it would have to load. For each data set
it has the table at the best and at the last epoch, which differences are more than chance, plots,
what the samplers drew, and how it was made; at the end, the cells that failed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Final

import polars as pl

import nearfar
from nearfar import store
from nearfar.errors import EmptyDataError, MissingExtraError, OptionError, StoreError
from nearfar.experiment.cells import Outcome, load_all
from nearfar.experiment.significance import all_pairs
from nearfar.experiment.tables import (
    ONE_WAY,
    SHOWN,
    PaperData,
    Row,
    Shown,
    Which,
    comparable,
    escape_markdown,
    headings,
    latex,
    layout,
    markdown,
    name_of,
    options_of,
    summary,
    tidy,
)
from nearfar.schedule import LOWER_IS_BETTER

LEVEL: Final = 0.05
"""Corrected p-values below it count as more than chance."""
COMPARED: Final = ("map", "ndcg")
"""The figures that settings are compared by."""
_COMPARISONS: Final = "-significance"
_FAILED: Final = "failed."
"""An anchor that no data set has: the names of files do not end with a full stop."""
_WHEN: Final[dict[Which, str]] = {"best": "At the best epoch", "last": "At the last epoch"}


@dataclass(frozen=True)
class Part:
    """The outcomes of one data set, cut and trained in one way: what can be compared."""

    title: str
    """The name of the data set, and what else tells it from other parts."""
    file: str
    """Name of its files, without the end."""
    outcomes: list[Outcome]
    """Those that were tested, with distinct names of settings."""
    names: set[str]
    """Of settings that were tested, as they were given."""
    trials: list[Outcome]
    """Those that served to choose a learning rate."""
    paper: PaperData | None
    """Whose figures of the paper are shown beside those of the best epoch."""

    def rows(self, which: Which) -> list[Row]:
        """Give the rows of the table."""
        return layout(summary(self.outcomes, which), self.paper if which == "best" else None)


def write_report(
    results: str | PathLike[str], *, paper: Mapping[str, PaperData] | None = None
) -> list[Path]:
    """Write the report of all outcomes below ``results/cells``, beside them.

    ``<data>.csv`` has all figures in full, ``<data>.md`` and ``<data>.tex`` the tables,
    ``<data>-significance.csv`` the comparisons of every two settings, and ``index.html`` is the
    page. Results of one data set that cannot be compared, because they have another seed for
    example, are kept apart, in files named by what differs.

    Parameters
    ----------
    results : path
        The folder of a grid.
    paper : mapping of str to {"amazon", "book-crossing", "echonest"}, optional
        For the names of data sets, whose figures of the paper to show beside.

    Returns
    -------
    list of Path
        The files, the page last. What was there of these names is replaced.

    Raises
    ------
    EmptyDataError
        No cell was tested, and none failed.
    OptionError
        `paper` names a data set that is not there, or one that the paper does not have.
    StoreError
        An outcome cannot be read, or the files not be written.
    """
    folder = Path(results)
    outcomes, failures = load_all(folder), _failures(folder)
    parts = _parts(outcomes, paper or {})
    if not parts and not failures:
        raise EmptyDataError(
            f"{str(folder)!r} has no tested cells, so there is nothing to report. Give the folder "
            "of a grid that has been run."
        )
    texts, sections = {}, []
    for part in parts:
        compared = all_pairs(_users(part), COMPARED)
        made = _how_it_was_made(part, _versions(folder))
        texts[f"{part.file}.csv"] = tidy(part.outcomes).write_csv()
        texts[f"{part.file}.md"] = _markdown(part, made)
        texts[f"{part.file}.tex"] = _latex(part)
        texts[f"{part.file}{_COMPARISONS}.csv"] = compared.write_csv()
        sections.append(_section(part, compared, made))
    untested = {str(o.cell["data"]) for o in outcomes} - {
        str(part.outcomes[0].cell["data"]) for part in parts
    }
    texts["index.html"] = _page(parts, sections, failures, sorted(untested))
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
            f"Writing {str(path)!r} failed: {error}. Check the space and the rights there."
        ) from error


# --------------------------------------------------------------------------- what there is to say


def _parts(outcomes: Sequence[Outcome], paper: Mapping[str, PaperData]) -> list[Part]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda one: str(one.cell["data"])):
        way = json.dumps([outcome.cell[name] for name in ONE_WAY], sort_keys=True)
        groups.setdefault(way, []).append(outcome)
    kept = [group for group in groups.values() if any(o.cell["tested"] for o in group)]
    known = {str(group[0].cell["data"]) for group in kept}
    if unknown := sorted(set(paper) - known):
        raise OptionError(
            f"`paper` must be for data sets that have results ({', '.join(sorted(known))}); got "
            f"{unknown[0]!r}."
        )
    parts: list[Part] = []
    for title, group in zip(_titles(kept), kept, strict=True):
        taken = {f"{part.file}{end}".casefold() for part in parts for end in ("", _COMPARISONS)}
        file = _file_name(title, taken)
        names = {name_of(outcome) for outcome in group if outcome.cell["tested"]}
        trials = [outcome for outcome in group if not outcome.cell["tested"]]
        whose = paper.get(str(group[0].cell["data"]))
        parts.append(Part(title, file, comparable(group), names, trials, whose))
    return parts


def _titles(groups: Sequence[Sequence[Outcome]]) -> list[str]:
    """Name each group by its data set and, if others have the same, by what differs from them."""
    ways = [_way(group[0]) for group in groups]
    titles = []
    for way in ways:
        same = [other for other in ways if other["data"] == way["data"]]
        told = [f"{name} {way[name]}" for name in way if len({str(one[name]) for one in same}) > 1]
        titles.append(way["data"] + (f" ({', '.join(told)})" if told else ""))
    return titles


def _way(outcome: Outcome) -> dict[str, Any]:
    way = {name: outcome.cell[name] for name in ONE_WAY if name != "schedule"}
    return way | {"data": str(way["data"])} | dict(outcome.cell["schedule"])


def _file_name(title: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "data"
    name, number = plain, 1
    while name.casefold() in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


def _users(part: Part) -> dict[str, pl.DataFrame]:
    """For each setting, in the order of the table, what each user got in each fold."""
    users = {}
    for name in summary(part.outcomes)["setting"]:
        folds = sorted(
            (o for o in part.outcomes if name_of(o) == name), key=lambda o: int(o.cell["fold"])
        )
        users[name] = pl.concat(
            o.per_user["best"].select("user_id", *COMPARED, fold=pl.lit(o.cell["fold"]))
            for o in folds
        )
    return users


def _failures(folder: Path) -> list[dict[str, str]]:
    """Read the records of cells that failed; what cannot be read is listed as such."""
    found = []
    for file in sorted((folder / "failed").glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
            cell = record["cell"]
            rate = cell["setting"]["options"]["optimiser"]["learning_rate"]
            what = f"{cell['data']}: {cell['setting']['name']}, fold {int(cell['fold']) + 1}"
            what += f", learning rate {rate:g}" + ("" if cell["tested"] else ", not to be tested")
            error, trace = str(record["error"]), str(record["traceback"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
            what, error, trace = file.name, f"this record cannot be read ({problem!r})", ""
        found.append({"what": what, "error": error, "traceback": trace})
    return found


def _versions(folder: Path) -> list[str]:
    """Say which versions of nearfar computed the outcomes."""
    manifests = (folder / "cells").glob(f"*/{store.MANIFEST}")
    return sorted({str(json.loads(file.read_bytes())["nearfar"]) for file in manifests})


def _how_it_was_made(part: Part, versions: Sequence[str]) -> dict[str, str]:
    """Say in words what all rows have in common."""
    cell = part.outcomes[0].cell
    plan = cell["schedule"]
    end = "never early" if plan["patience"] is None else (
        f"after {plan['patience']} evaluations without a new best"
    )  # fmt: skip
    everything = [*part.outcomes, *part.trials]
    hours = sum(outcome.machine_seconds for outcome in everything) / 3600
    made = {
        "data": str(cell["data"]),
        "fingerprint of the data": str(cell["fingerprint"]),
        "folds": f"{cell['folds']}, of which {len({o.cell['fold'] for o in part.outcomes})} tested",
        "seed": str(cell["seed"]),
        "validation part": f"{cell['validation']:g} of each user's training interactions",
        "schedule": f"at most {plan['epochs']} epochs, evaluated every {plan['every']}; the best "
        f"by {plan['metric']}@{plan['k']} on the validation part; stopped {end}",
        "runs": f"{len(part.outcomes)} tested, {len(part.trials)} to choose learning rates",
        "processor time": f"{hours:.2f} hours in all",
        "computed by": "nearfar " + ", ".join(versions),
        "reported by": f"nearfar {nearfar.__version__}",
    }
    return made | {name: text for name, text in _in_common(part).items() if name not in made}


def _in_common(part: Part) -> dict[str, str]:
    """Give the options that are the same in all rows."""
    flat = [_flat(outcome) for outcome in part.outcomes]
    return {
        name: value
        for name, value in flat[0].items()
        if all(other.get(name) == value for other in flat)
    }


def _flat(outcome: Outcome) -> dict[str, str]:
    """Give options as text, those of a part as ``sampler.beta``."""
    flat = {}
    for name, value in options_of(outcome).items():
        if isinstance(value, Mapping):
            flat[name] = str(value["kind"])
            flat |= {f"{name}.{key}": str(one) for key, one in value.items() if key != "kind"}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def _incomplete(part: Part) -> str:
    """Name the rows that lack folds which others have, and those that have none yet."""
    found = summary(part.outcomes)
    most = max(found["folds"].to_list())
    lacking = found.filter(pl.col("folds") < most).select("setting", "folds").rows()
    notes = []
    if lacking:
        rows = "; ".join(f"{name}: {folds} of {most}" for name, folds in lacking)
        notes.append(f"Not all folds are there, so these rows are means over fewer: {rows}.")
    begun = {name_of(trial) for trial in part.trials}
    if untested := sorted(begun - part.names):
        notes.append(f"Not tested, so not in the table: {'; '.join(untested)}.")
    return " ".join(notes)


def _caption(part: Part, which: Which) -> str:
    plan = part.outcomes[0].cell["schedule"]
    return (
        f"{part.title}: mean ± standard deviation over folds, lists of {plan['k']}. "
        f"{_WHEN[which]}. Bold: the best; bold italic: the best of uniform sampling "
        "(MMR: the lowest)."
    )


# ------------------------------------------------------------------------- Markdown and LaTeX


def _markdown(part: Part, made: Mapping[str, str]) -> str:
    lines = [f"# {escape_markdown(part.title)}\n"]
    for which, heading in _WHEN.items():
        lines += [f"## {heading}\n", escape_markdown(_caption(part, which)) + "\n"]
        lines.append(markdown(part.rows(which)))
    if note := _incomplete(part):
        lines.append(escape_markdown(note) + "\n")
    lines.append("## How it was made\n")
    lines += ["\n".join(f"- {name}: {escape_markdown(text)}" for name, text in made.items())]
    return "\n".join(lines) + "\n"


def _latex(part: Part) -> str:
    note = _incomplete(part)
    tables = [latex(part.rows(which), f"{_caption(part, which)} {note}") for which in _WHEN]
    return "% \\usepackage{booktabs}\n" + "\n".join(tables)


# --------------------------------------------------------------------------------------- page

_STYLE: Final = """
body { font: 16px/1.45 Georgia, serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #111; background: #fff }
h2 { border-top: 2px solid #111; padding-top: 1rem; margin-top: 3rem }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin: 1em 0;
        font-variant-numeric: tabular-nums; font-size: 0.9rem }
th, td { padding: 0.15em 0.7em; text-align: right; vertical-align: top; white-space: nowrap }
th { font-weight: normal }
th[scope=row], .text td { text-align: left }
.text td { white-space: normal }
thead th, tbody { border-bottom: 1px solid #777 }
caption { text-align: left; font-style: italic; padding-bottom: 0.5em; white-space: normal }
.wide { overflow-x: auto }
figure { margin: 1.5em 0 }
svg { max-width: 100%; height: auto }
pre { white-space: pre-wrap; font-size: 0.8rem; border-left: 2px solid #777; padding-left: 1em }
"""


def _page(
    parts: Sequence[Part],
    sections: Sequence[str],
    failures: Sequence[Mapping[str, str]],
    untested: Sequence[str],
) -> str:
    links = [f'<li><a href="#{part.file}">{escape(part.title)}</a></li>' for part in parts]
    links += [f"<li>{escape(name)}: nothing has been tested yet</li>" for name in untested]
    if failures:
        links.append(f'<li><a href="#{_FAILED}">Cells that failed ({len(failures)})</a></li>')
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Results</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Results</h1>\n"
        f"<ul>\n{_lines(links)}</ul>\n{_lines(sections)}{_failed(failures)}</body>\n</html>\n"
    )


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts)


def _section(part: Part, compared: pl.DataFrame, made: Mapping[str, str]) -> str:
    blocks = [f'<h2 id="{part.file}">{escape(part.title)}</h2>']
    for which, heading in _WHEN.items():
        blocks += [f"<h3>{heading}</h3>", _results(part, which)]
    if note := _incomplete(part):
        blocks.append(f"<p>{escape(note)}</p>")
    blocks += ["<h3>Which differences are more than chance</h3>", _differences(compared)]
    blocks += ["<h3>Plots</h3>", _plots(part)]
    blocks += ["<h3>What the samplers draw</h3>", _draws(part)]
    blocks += ["<h3>How it was made</h3>", _made(part, made)]
    return _lines(blocks)


def _table(
    names: Sequence[str],
    groups: Iterable[Sequence[Sequence[str]]],
    caption: str = "",
    kind: str = "",
) -> str:
    """Write a table; the cells are HTML, the names and the caption are text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    bodies = []
    for rows in groups:
        lines = [
            f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
            for first, *rest in rows
        ]
        bodies.append(f"<tbody>\n{_lines(lines)}</tbody>")
    said = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    return (
        f'<div class="wide"><table class="{kind}">\n{said}<thead><tr>{head}</tr></thead>\n'
        f"{_lines(bodies)}</table></div>"
    )


def _results(part: Part, which: Which) -> str:
    rows = part.rows(which)
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        first, *rest = row.cells(_emphasised)
        groups.setdefault(row.group, []).append([escape(first), *rest])
    return _table(headings(rows), groups.values(), _caption(part, which), "results")


def _emphasised(figure: Shown) -> str:
    text = escape(figure.text)
    if figure.best_uniform:
        return f"<b><i>{text}</i></b>"
    return f"<b>{text}</b>" if figure.best else text


def _differences(compared: pl.DataFrame) -> str:
    if compared.height == 0:
        return "<p>There is only one setting, so there is nothing to compare.</p>"
    blocks = [
        "<p>Row minus column, in percentage points, at the best epoch. All p-values are corrected "
        f"by Holm for the number of pairs and count if below {LEVEL}. ● both tests say that it is "
        "more than chance; ○ only Wilcoxon's signed-rank test over users and folds does: these "
        "very models differ, but models trained anew might not; △ only the paired t-test over "
        "folds does.</p>"
    ]
    for metric in COMPARED:
        rows = compared.filter(pl.col("metric") == metric)
        blocks += [_matrix(rows, SHOWN[metric]), _listing(rows, SHOWN[metric])]
    return _lines(blocks)


def _matrix(rows: pl.DataFrame, title: str) -> str:
    names = list(dict.fromkeys([*rows["a"], *rows["b"]]))
    cells = {}
    for row in rows.iter_rows(named=True):
        cells[row["a"], row["b"]] = _difference(row, 1)
        cells[row["b"], row["a"]] = _difference(row, -1)
    numbers = [str(number) for number in range(1, len(names) + 1)]
    lines = [
        [f"{number}. {escape(name)}", *(cells.get((name, other), "") for other in names)]
        for number, name in zip(numbers, names, strict=True)
    ]
    return _table(["", *numbers], [lines], title)


def _difference(row: Mapping[str, Any], sign: int) -> str:
    if row["difference"] is None:
        return "—"
    users, folds = (
        row[name] is not None and row[name] < LEVEL for name in ("wilcoxon_p_holm", "fold_p_holm")
    )
    mark = {(True, True): "●", (True, False): "○", (False, True): "△"}.get((users, folds), "")
    return f"{100 * sign * row['difference']:+.2f}{mark}"


def _listing(rows: pl.DataFrame, title: str) -> str:
    names = ["setting", "minus", "users x folds", "difference", "95% interval", "Wilcoxon p",
             "t-test p", "over folds", "95% interval", "t-test p"]  # fmt: skip
    lines = [
        [
            escape(row["a"]), escape(row["b"]), str(row["n"]), _points(row["difference"]),
            f"{_points(row['low'])} … {_points(row['high'])}", _p(row["wilcoxon_p_holm"]),
            _p(row["t_p_holm"]), _points(row["fold_difference"]),
            f"{_points(row['fold_low'])} … {_points(row['fold_high'])}", _p(row["fold_p_holm"]),
        ]
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip
    table = _table(
        names,
        [lines],
        f"{title}: differences in percentage points; p-values are corrected, intervals are not",
    )
    return f"<details><summary>{title}: all pairs</summary>\n{table}\n</details>"


def _points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:+.3f}"


def _p(value: float | None) -> str:
    return "—" if value is None else f"{value:.2g}"


def _plots(part: Part) -> str:
    try:
        from nearfar.experiment.plots import page_plots

        drawn = page_plots(part.outcomes)
    except MissingExtraError as error:
        return f"<p>The plots are left out. {escape(str(error))}</p>"
    return _lines(
        f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{svg}\n</figure>"
        for title, svg in drawn.items()
    )


def _draws(part: Part) -> str:
    """Show the table "sampling" of the diagnostics, averaged over folds."""
    names = {
        "violated": "violated pairs %", "held_out": "false negatives %", "missed": "empty places %",
        "effective_mean": "chosen among, mean", "effective_p10": "10%", "effective_p50": "median",
        "effective_p90": "90%",
    }  # fmt: skip
    lines = []
    for setting in summary(part.outcomes)["setting"]:
        own = [o.diagnostics.get("sampling") for o in part.outcomes if name_of(o) == setting]
        frames = [frame for frame in own if frame is not None]
        if frames:
            means = pl.concat(frames).select(*names).fill_nan(None).mean().row(0, named=True)
            lines.append([escape(str(setting)), *(_drawn(name, means[name]) for name in names)])
    if not lines:
        return "<p>These outcomes have no diagnostics.</p>"
    return _table(
        ["setting", *names.values()], [lines],
        "With the vectors of the best epoch, means over folds: pairs with a negative inside the "
        "margin, draws that are items of the user that were held out, places that stayed empty, "
        "and among how many items a negative is effectively chosen.",
    )  # fmt: skip


def _drawn(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "—"
    return f"{value:.1f}" if name.startswith("effective") else f"{100 * value:.2f}"


def _made(part: Part, made: Mapping[str, str]) -> str:
    common = _table(
        ["all rows", ""], [[[escape(k), escape(v)] for k, v in made.items()]], kind="text"
    )
    return _lines([common, _each(part), _rates(part)])


def _each(part: Part) -> str:
    """Show what differs between the rows: options, epochs, time."""
    flat = {name_of(outcome): _flat(outcome) for outcome in part.outcomes}
    common = _in_common(part)
    differing = sorted({name for one in flat.values() for name in one} - set(common))
    lines = []
    for row in summary(part.outcomes).iter_rows(named=True):
        options = [escape(flat[row["setting"]].get(name, "")) for name in differing]
        measured = [f"{row[name]:.1f}" for name in _MEASURED]
        lines.append([escape(row["setting"]), str(row["folds"]), *measured, *options])
    return _table(["setting", "folds", *_MEASURED.values(), *differing], [lines],
                  "Each row; epochs and seconds are means over folds.")  # fmt: skip


_MEASURED: Final = {
    "best_epoch": "best epoch", "last_epoch": "last epoch", "seconds": "seconds of training",
    "machine_seconds": "processor seconds",
}  # fmt: skip


def _rates(part: Part) -> str:
    """Show what the learning rates were chosen by."""
    if not part.trials:
        return ""
    metric = part.trials[0].cell["schedule"]["metric"]
    found: dict[tuple[str, float], float | None] = {}
    for trial in part.trials:
        column = trial.history[f"validation_{metric}"].drop_nulls().drop_nans()
        best: Any = column.min() if metric in LOWER_IS_BETTER else column.max()
        rate = float(options_of(trial)["optimiser"]["learning_rate"])
        found[name_of(trial), rate] = best
    rates = sorted({rate for _, rate in found})
    values = {key: "—" if best is None else f"{best:.5f}" for key, best in found.items()}
    lines = [
        [escape(name), *(values.get((name, rate), "") for rate in rates)]
        for name in dict.fromkeys(name for name, _ in found)
    ]
    return _table(
        ["setting", *(f"{rate:g}" for rate in rates)], [lines],
        f"What the learning rates were chosen by: {metric} on the validation part of the first "
        "fold, at its best epoch.",
    )  # fmt: skip


def _failed(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return ""
    blocks = [f'<h2 id="{_FAILED}">Cells that failed</h2>']
    blocks += [
        f"<p><b>{escape(failure['what'])}</b>: {escape(failure['error'])}</p>\n"
        f"<details><summary>traceback</summary>\n<pre>{escape(failure['traceback'])}</pre>\n"
        "</details>"
        for failure in failures
    ]
    return _lines(blocks)

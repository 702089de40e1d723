"""The figures in docs/ are those of the results beside them."""

import runpy
from pathlib import Path

import polars as pl
import pytest

from nearfar.experiment.tables import SHOWN, figure_text

DOCS = Path(__file__).parent.parent / "docs"
REPORTS = sorted(path for path in DOCS.glob("results/*/*.md") if path.with_suffix(".csv").exists())
PAGES = [*sorted(DOCS.glob("*.md")), DOCS / "results" / "README.md"]
LEAST = {
    "gowalla-presets": 4, "lastfm-presets": 7, "amazon-cds-presets": 7,
    "amazon-cds-study": 20, "gowalla-study": 21, "lastfm-study": 24, "ml-100k-study": 24,
}  # fmt: skip
"""Rows of the reports that are not of the 15 of Table 2, or more."""
HEAD = ["method", "batch", "negatives", *SHOWN.values()]


def tables(text):
    """The tables of a page, as lists of rows of text without emphasis."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("*", "") for cell in line.strip("|").split("|")])
        elif rows:
            found.append(rows)
            rows = []
    return found


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_committed_report_has_the_figures_of_its_csv(report):
    figures = pl.read_csv(report.with_suffix(".csv"), infer_schema_length=None)
    found = tables(report.read_text())
    assert len(found) == 2
    for which, (head, _, *rows) in zip(("best", "last"), found, strict=True):
        assert head == HEAD
        assert len(rows) == figures["setting"].n_unique() >= LEAST.get(report.stem, 15)
        own = figures.filter(pl.col("which") == which)
        expected = set()
        for (_, method, batch, n), part in own.group_by("setting", "method", "batch", "negatives"):
            by_metric = {row["metric"]: row for row in part.iter_rows(named=True)}
            shown = (figure_text(m, by_metric[m]["mean"], by_metric[m]["std"]) for m in SHOWN)
            expected.add((method, str(batch), str(n), *shown))
        assert {tuple(row) for row in rows} == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_shows_rows_of_the_reports(page):
    known = {tuple(row) for report in REPORTS for t in tables(report.read_text()) for row in t}
    for head, _, *rows in tables(page.read_text()):
        if head == HEAD:
            assert rows
            assert {tuple(row) for row in rows} <= known


def test_marked_tables_are_those_of_the_benchmarks_results():
    report = runpy.run_path(str(DOCS.parent / "benchmarks" / "report.py"))
    for page in report["PAGES"]:
        text = page.read_text()
        assert "<!-- table" in text
        assert report["with_tables"](text) == text


def test_there_is_something_to_check():
    assert REPORTS
    texts = [page.read_text() for page in PAGES]
    assert sum(head == HEAD for text in texts for head, *_ in tables(text)) >= 1

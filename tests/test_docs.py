"""The documentation: its numbers are those of the results, and what it names is there."""

import ast
import re
import runpy
from importlib import import_module
from inspect import signature
from pathlib import Path

import polars as pl
import pytest
from typer.main import get_command

import nearfar as nf
from nearfar.cli import app
from nearfar.experiment.tables import SHOWN, VERSIONS, figure_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REPORTS = sorted(path for path in DOCS.glob("results/*/*.md") if path.with_suffix(".csv").exists())
PAGES = [
    *sorted(path for path in DOCS.rglob("*.md") if path not in REPORTS),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
]
LEAST = {
    "gowalla-presets": 4, "lastfm-presets": 7, "amazon-cds-presets": 7,
    "lastfm-prior": 4, "amazon-cds-prior": 3, "ml-100k-prior": 8,
    "amazon-cds-study": 20, "gowalla-study": 21, "lastfm-study": 24, "ml-100k-study": 24,
}  # fmt: skip
"""Rows of the reports that are not of the 15 of Table 2, or more."""
HEAD = ["method", "batch", "negatives", *SHOWN.values()]
TABLE_2 = ("lastfm", "amazon-cds", "gowalla")
GUIDES = (
    "encoders",
    "other-libraries",
    "data",
    "options",
    "new-users",
    "item-index",
    "popularity",
    "neighbours",
    "reasons",
    "content",
    "tuning",
)
"""The guides whose examples run anywhere; that of the GPU needs one."""


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def tables(text):
    """The tables of a page, as lists of rows of text without emphasis."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            rows.append([cell.strip().replace("*", "") for cell in cells])
        elif rows:
            found.append(rows)
            rows = []
    return found


# ------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_committed_report_has_the_figures_of_its_csv(report):
    figures = pl.read_csv(report.with_suffix(".csv"), infer_schema_length=None)
    found = tables(report.read_text())
    versions = [which for which in VERSIONS if which in set(figures["which"])]
    for which, (head, _, *rows) in zip(versions, found, strict=True):
        assert head[: len(HEAD)] == HEAD
        own = figures.filter(pl.col("which") == which)
        assert len(rows) == own["setting"].n_unique()
        if which != "prior":
            assert len(rows) == figures["setting"].n_unique() >= LEAST.get(report.stem, 15)
        expected = set()
        for (_, method, batch, n), part in own.group_by("setting", "method", "batch", "negatives"):
            by_metric = {row["metric"]: row for row in part.iter_rows(named=True)}
            shown = (figure_text(m, by_metric[m]["mean"], by_metric[m]["std"]) for m in SHOWN)
            expected.add((method, str(batch), str(n), *shown))
        assert {tuple(row[: len(HEAD)]) for row in rows} == expected


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_shows_rows_of_the_reports(page):
    known = {tuple(row) for report in REPORTS for t in tables(report.read_text()) for row in t}
    for head, _, *rows in tables(page.read_text()):
        if head == HEAD:
            assert rows
            assert {tuple(row) for row in rows} <= known


def test_marked_tables_are_those_of_the_benchmarks_results():
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    for page in report["PAGES"]:
        text = page.read_text()
        assert "<!-- table" in text
        assert report["with_tables"](text) == text
    marked = {page for page in PAGES if "<!-- table" in page.read_text()}
    assert marked == set(report["PAGES"])


def test_there_is_something_to_check():
    assert REPORTS
    texts = [page.read_text() for page in PAGES]
    assert sum(head == HEAD for text in texts for head, *_ in tables(text)) >= 1


# ------------------------------------------------------------ the claims, in what is committed


def table_2(data):
    """Mean of each metric at the best epoch, by (method, batch, negatives, metric)."""
    figures = pl.read_csv(DOCS / "results" / data / f"{data}.csv", infer_schema_length=None)
    best = figures.filter(which="best").select("method", "batch", "negatives", "metric", "mean")
    return {tuple(key): mean for *key, mean in best.iter_rows()}


@pytest.mark.parametrize("data", TABLE_2)
def test_large_batches_hardly_help_uniform_sampling(data):
    """By at most 0.6 points of NDCG, where five negatives instead of one bring 1.6 to 2."""
    mean = table_2(data)
    points = {key: 100 * value for key, value in mean.items()}
    gains = [points["uniform", 4096, n, "ndcg"] - points["uniform", 256, n, "ndcg"]
             for n in (1, 2, 5)]  # fmt: skip
    more = points["uniform", 256, 5, "ndcg"] - points["uniform", 256, 1, "ndcg"]
    assert max(gains) < 0.6 < 1.6 < more
    assert (min(gains) > 0.2) == (data == "gowalla")


@pytest.mark.parametrize("data", TABLE_2)
@pytest.mark.parametrize("negatives", [1, 2, 5])
def test_popularity_sampling_cuts_popularity_bias_and_costs_accuracy(data, negatives):
    mean = table_2(data)
    row = {m: mean["popularity", 256, negatives, m] for m in ("map", "mmr")}
    uniform = {m: mean["uniform", 256, negatives, m] for m in ("map", "mmr")}
    assert row["mmr"] < 0.65 * uniform["mmr"]
    assert row["map"] < uniform["map"]


@pytest.mark.parametrize("data", TABLE_2)
@pytest.mark.parametrize("negatives", [1, 2, 5])
def test_two_stage_as_printed_collapses(data, negatives):
    mean = table_2(data)
    best = max(v for (method, *_, m), v in mean.items() if (method, m) == ("uniform", "ndcg"))
    assert mean["2-stage", 256, negatives, "ndcg"] < 0.5 * best


# ---------------------------------------------------------------------------- what it names


def exists(name):
    """Whether a dotted name can be imported, module by module and then attribute by attribute."""
    parts = name.split(".")
    value = import_module(parts[0])
    for place, part in enumerate(parts[1:], 2):
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = import_module(".".join(parts[:place]))
            except ImportError:
                return part in getattr(value, "__dataclass_fields__", {})
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_dotted_names_can_be_imported(page):
    named = set(re.findall(r"`(?:\w+\()?(nearfar(?:\.\w+)+)", page.read_text()))
    named |= {f"nearfar.{part}" for part in re.findall(r"\bnf\.([\w.]*\w)", page.read_text())}
    assert [name for name in sorted(named) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_and_files_that_are_named_are_there(page):
    text = page.read_text()
    missing = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        if not (ROOT / path).is_file():
            missing.append(path)
        elif name:
            tree = ast.parse((ROOT / path).read_text())
            if name not in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}:
                missing.append(f"{path}::{name}")
    scripts = re.findall(r"python ((?:benchmarks|research)/\w+\.py)", text)
    missing.extend(path for path in scripts if not (ROOT / path).is_file())
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text())
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_flags_are_there(page):
    commands = get_command(app).commands
    text = page.read_text()
    fenced = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"^nearfar ([a-z].*?)(?:#|$)", fenced, re.MULTILINE)
    lines += re.findall(r"^    nearfar (.*)$", text, re.MULTILINE)
    lines += re.findall(r"(?<!`)`nearfar ([a-z][^`]*)`", text)
    for line in lines:
        words = line.split()
        command = commands[words.pop(0)]
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        flags = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= flags, line


def test_the_index_of_the_documentation_has_every_page():
    index = DOCS / "README.md"
    linked = {
        (DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+\.md)\)", index.read_text())
    }
    assert {page.resolve() for page in PAGES} - linked == {index}


def test_every_equation_is_one_step_from_the_readme():
    assert "](docs/paper.md)" in (ROOT / "README.md").read_text()
    rows = [row for table in tables((DOCS / "paper.md").read_text()) for row in table]
    for equation in ("Eq. 1", "Eq. 3", "Eq. 4", "Eq. 5", "p(s)"):
        (row,) = [row for row in rows if row[0].startswith(equation)]
        assert "](../src/nearfar/method/" in row[1]
        assert "`tests/method/" in row[2]


def test_an_equation_of_a_docstring_is_in_the_row_of_its_number():
    """Each "eq. N" of the method is in the table, with a function whose docstring says so."""
    found = set()
    for path in (ROOT / "src" / "nearfar" / "method").glob("*.py"):
        found |= set(re.findall(r"\b[Ee]q\. (\d)", path.read_text()))
    rows = [row for table in tables((DOCS / "paper.md").read_text()) for row in table]
    assert {"1", "3", "4", "5"} <= found
    for number in found:
        (row,) = [row for row in rows if row[0].startswith(f"Eq. {number}")]
        named = re.findall(r"`(nearfar\.method\.[\w.]+)`", row[1])
        says = [n for n in named if re.search(rf"[Ee]q\. {number}\b", documentation(n))]
        assert says, f"eq. {number}: none of {named} says so"


def documentation(name):
    """The docstrings of an object and of what it belongs to, below its module."""
    parts = name.split(".")
    value, texts = import_module(".".join(parts[:3])), []
    for part in parts[3:]:
        value = getattr(value, part)
        texts.append(value.__doc__ or "")
    return " ".join(texts)


LIBRARIES = ("implicit", "LightFM", "RecBole", "LensKit", "RecTools")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_table_leads_from_each_library_here(library):
    text = (DOCS / "coming-from.md").read_text()
    (part,) = [part for part in text.split("\n## ") if part.startswith(f"{library}\n")]
    ((head, _, *rows),) = tables(part)
    assert head == ["there", "here"]
    assert len(rows) >= 10
    named = [set(re.findall(r"\bnf\.[\w.]*\w", here)) for _, here in rows]
    assert sum(map(bool, named)) >= 8  # test_dotted_names_can_be_imported has imported them
    for there, _ in rows:
        assert there


def test_arguments_on_the_right_of_these_tables_are_there():
    here = [row[1] for table in tables((DOCS / "coming-from.md").read_text()) for row in table]
    named = set(re.findall(r"`(\w+)=[^`]*`", " ".join(here)))
    calls = (nf.CML.fit, nf.CML.recommend, nf.evaluate, nf.split.by_user, nf.split.leave_one_out,
             nf.Features.from_frame)  # fmt: skip
    assert {"validation", "liked", "given"} <= named
    assert named <= {name for call in calls for name in signature(call).parameters}


# ------------------------------------------------------------------------------- what it shows


@pytest.fixture(scope="module")
def films(ml_100k):
    train, test = nf.split.ratio(ml_100k, test=0.25, seed=0)
    model = nf.CML(dim=16).fit(train, epochs=2)
    return {"nf": nf, "data": ml_100k, "train": train, "test": test, "model": model}


@pytest.mark.parametrize("guide", GUIDES)
def test_the_examples_of_a_guide_run(guide, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "guides" / f"{guide}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names = dict(films)
    for block in blocks:
        exec(block, names)

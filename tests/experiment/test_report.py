"""Tables and the page: numbers equal the CSV file, the best are marked, all text is escaped."""

import csv
import json
import re
import statistics
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from nearfar import presets
from nearfar.errors import (
    DataError,
    EmptyDataError,
    MissingExtraError,
    OptionError,
    StoreError,
)
from nearfar.evaluation.metrics import overall
from nearfar.evaluation.metrics import per_user as of_users
from nearfar.experiment import cells, paper, rates, report, table2, tables, writers
from nearfar.experiment.cells import Cell, Outcome, Setting
from nearfar.experiment.page import _difference
from nearfar.experiment.significance import paired
from nearfar.runtime import store
from nearfar.training.schedule import Schedule

SCHEDULE = Schedule(epochs=30, every=2, patience=5, k=50)
HARD = "R&D <b>50%</b> | *x*_y `z` \\ #1 ~^{}$"


def outcome(setting, fold=0, *, data="amazon", level=0.02, seed=0, rate=None, n=25, gamma=None):
    """Make up an outcome, with a prior if gamma is given; its figures follow from what is given."""
    options = setting.options
    if rate is not None:
        options = replace(options, optimiser=replace(options.optimiser, learning_rate=rate))
    cell = Cell(data, "f" * 64, Setting(setting.name, options), fold, 4, seed, SCHEDULE, 0.1)
    rng = np.random.default_rng([fold, seed, int(level * 1e6)])
    metrics, per_user = {}, {}
    shares = {"best": 1.0, "last": 0.9} | ({} if gamma is None else {"prior": 1.2})
    for which, share in shares.items():
        columns = {m: rng.random(n) * 2 * level * share for m in of_users()}
        columns["mmr"] = np.round(columns["mmr"] * 5000) / 2
        per_user[which] = pl.DataFrame(
            {"user_id": [f"u{u}" for u in range(n)], "n_relevant": np.full(n, 3), **columns}
        )
        metrics[which] = {m: float(np.mean(values)) for m, values in columns.items()}
        metrics[which] |= {m: float(rng.random()) for m in overall()}
    history = pl.DataFrame(
        {
            "epoch": [1, 2, 3],
            "seconds": [1.0, 2.0, 3.0],
            "validation_ndcg": [None, level, level / 2],
        }
    )
    drawn = {
        "missed": 0.001, "violated": 0.7, "held_out": level, "false_push": level / 4,
        "effective_mean": 123.25, "effective_p10": 1.0, "effective_p50": 100.0,
        "effective_p90": 200.0,
    }  # fmt: skip
    return Outcome(
        cell.to_dict(), 2 + fold, 10 + fold, 100.0 + fold, 200.0 + fold, history, metrics, per_user,
        {"sampling": pl.DataFrame([drawn])}, gamma=gamma,
    )  # fmt: skip


def table_2(data="amazon", folds=4, **options):
    return [
        outcome(setting, fold, data=data, level=0.02 + 0.001 * (at * 7 % 15), **options)
        for at, setting in enumerate(table2.rows())
        for fold in range(folds)
    ]


def save_all(outcomes, results):
    for number, one in enumerate(outcomes):
        cells.save(one, results, f"{number:04}")


@pytest.fixture(autouse=True, scope="module")
def drawing():
    """Stand in for the plots: quick, and needing nothing."""
    plots = ModuleType("nearfar.experiment.plots")
    plots.page_plots = lambda outcomes: {f"<{len(outcomes)}> curves": '<svg id="drawn"></svg>'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, plots.__name__, plots)
        yield plots


class Page(HTMLParser):
    """Tables by caption, as lists of rows of (text, marks); all text; all tags."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.text, self.open, self.attributes = {}, [], "", [], []
        self.rows = self.caption = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append(("", ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, text):
        self.text += text
        if "caption" in self.open:
            self.caption += text
        elif {"td", "th"} & set(self.open):
            before, marks = self.rows[-1][-1]
            marks = "".join(tag for tag in self.open if tag in {"b", "i"})
            self.rows[-1][-1] = before + text, marks


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(rows, which):
    """For each (method, batch, negatives) of a CSV file the three figures as text."""
    found = {}
    for row in rows:
        if row["which"] != which or row["metric"] not in {"map", "ndcg", "mmr"}:
            continue
        mean, std = float(row["mean"]), float(row["std"])
        if row["metric"] == "mmr":
            text = f"{mean:.1f} ± {std:.1f}"
        else:
            text = f"{mean * 100:.2f} ± {std * 100:.2f}"
        found.setdefault((row["method"], row["batch"], row["negatives"]), []).append(text)
    return found


# ------------------------------------------------------------------------------------- summary


def test_a_summary_is_mean_and_deviation_over_folds():
    outcomes = table_2()
    for which in ("best", "last"):
        found = tables.summary(outcomes, which)
        assert found.height == 15
        for row in found.iter_rows(named=True):
            own = [o for o in outcomes if o.cell["setting"]["name"] == row["setting"]]
            for metric in (*of_users(), *overall()):
                values = [o.metrics[which][metric] for o in own]
                assert row[metric] == pytest.approx(statistics.mean(values))
                assert row[f"{metric}_std"] == pytest.approx(statistics.stdev(values))
            assert row["best_epoch"] == 3.5
            assert row["last_epoch"] == 11.5
            assert row["seconds"] == 101.5
            assert row["machine_seconds"] == 201.5
            assert (row["folds"], row["learning_rate"]) == (4, 1e-4)


def test_rows_are_grouped_like_the_papers():
    outcomes = table_2(folds=1)
    np.random.default_rng(0).shuffle(outcomes)
    found = tables.summary(outcomes)
    assert found.select("method", "negatives", "batch").rows() == [
        *(("uniform", n, batch) for n in (1, 2, 5) for batch in (4096, 1024, 256)),
        *(("popularity", n, 256) for n in (1, 2, 5)),
        *(("2-stage", n, 256) for n in (1, 2, 5)),
    ]
    assert found["setting"].to_list() == [row.name for row in table2.rows()]


def test_names_that_say_more_are_kept_and_equal_ones_are_told_apart():
    base = presets.paper_2019("uniform", negatives=1)
    (row,) = table2.rows(samplers=["two-stage"], negatives=[1], beta=0.5)
    assert tables.summary([outcome(row)])["method"].to_list() == ["2-stage (beta 0.5)"]
    names = ["mine", "uniform", "uniform, 1 negative, batch 256", "x, 2 negatives, batch 256"]
    found = tables.summary([outcome(Setting(name, base)) for name in names])
    assert dict(found.select("setting", "method").rows()) == {name: name for name in names}


def test_a_setting_with_two_learning_rates_is_two_rows():
    setting = table2.rows()[0]
    found = tables.summary([outcome(setting, rate=rate) for rate in (1e-3, 3e-4)])
    assert set(found.select("setting", "method", "learning_rate").rows()) == {
        (f"{setting.name} (learning rate 0.001)", "uniform (learning rate 0.001)", 0.001),
        (f"{setting.name} (learning rate 0.0003)", "uniform (learning rate 0.0003)", 0.0003),
    }
    others = [Setting("s", replace(setting.options, dim=dim)) for dim in (8, 16)]
    numbered = tables.summary([outcome(one) for one in others])
    assert set(numbered["setting"]) == {"s (1)", "s (2)"}


def test_a_single_fold_has_no_deviation_and_a_missing_figure_is_null():
    one, other = outcome(table2.rows()[0]), outcome(table2.rows()[0], 1)
    assert tables.summary([one])["map_std"].to_list() == [None]
    other.metrics["best"]["mmr"] = None
    row = tables.summary([one, other]).row(0, named=True)
    assert (row["mmr"], row["mmr_std"]) == (None, None)
    assert row["map"] is not None
    (shown,) = tables.layout(tables.summary([one, other]))
    assert shown.figures[2] == tables.Shown("—", best=False, best_uniform=False)


def test_only_the_chosen_learning_rates_are_reported(tmp_path):
    setting, other = table2.rows()[:2]
    tried = [outcome(setting, rate=rate, level=level)
             for rate, level in ((1e-4, 0.01), (3e-4, 0.02), (1e-3, 0.03))]  # fmt: skip
    later = outcome(setting, 1, rate=1e-3, level=0.001)
    old = outcome(setting, 1, rate=3e-4, level=0.5)  # chosen once, before 1e-3 was tried
    unknown = outcome(other, 1, rate=3e-4), outcome(other, 1, rate=1e-3)  # fold 0 is to come
    found = rates.with_chosen_rates([*tried, later, old, *unknown])
    assert found == ([tried[2], later, *unknown], [tried[0], tried[1], old])
    assert rates.with_chosen_rates([later, old]) == ([later, old], [])
    save_all([*tried, later, old], tmp_path)
    (path, *_, page) = report.write_report(tmp_path)
    table = pl.read_csv(path)
    assert set(table["setting"]) == {setting.name}
    assert set(table["learning_rate"]) == {1e-3}
    assert set(table["folds"]) == {2}
    text = page.read_text()
    assert "2, and 3 with learning rates that were not chosen" in text
    for outcome_ in (tried[0], tried[1], old):
        assert tables.figure_text("map", outcome_.metrics["best"]["map"]) not in text


@pytest.mark.parametrize(
    ("outcomes", "kind", "message"),
    [
        ([], EmptyDataError, "There are no outcomes"),
        ([outcome(table2.rows()[0])] * 2, DataError, "Fold 0 of 'uniform, 1 .* more than once"),
        (
            [outcome(table2.rows()[0]), outcome(table2.rows()[1], seed=3)],
            DataError,
            "got seed 0 and 3. Pass those of one",
        ),
        (
            [outcome(table2.rows()[0]), outcome(table2.rows()[1], data="b")],
            DataError,
            'got data "amazon" and "b"',
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(outcomes, kind, message):
    with pytest.raises(kind, match=message):
        tables.summary(outcomes)


def test_the_prior_is_summed_up_where_there_is_one():
    uniform, popular, mine = *table2.rows()[:2], Setting("mine", nf.Options(prior=nf.Prior()))
    old, own = outcome(uniform), outcome(mine, gamma=0.05)
    own.metrics.pop("prior")
    new = [outcome(popular, fold, gamma=gamma) for fold, gamma in enumerate((0.03, 0.04))]
    found = tables.summary([old, own, *new], "prior")
    assert found.select("setting", "folds", "gamma").rows() == [(popular.name, 2, 0.035)]
    assert found["map"].to_list() == [statistics.mean(o.metrics["prior"]["map"] for o in new)]
    best = tables.summary([old, own, *new])
    gammas = dict(best.select("setting", "gamma").rows())
    assert gammas == {uniform.name: None, popular.name: None, "mine": 0.05}
    assert {row.gamma for row in tables.layout(best)} == {("—",), ("0.050",)}
    tidied = tables.tidy([old, own, *new])
    assert tidied.filter(which="prior")["setting"].unique().to_list() == [popular.name]
    with pytest.raises(EmptyDataError, match="'best' or 'last' for these outcomes; got 'prior'"):
        tables.summary([old, own], "prior")


def test_options_of_tables_are_checked():
    outcomes = [outcome(table2.rows()[0])]
    with pytest.raises(OptionError, match="`which` must be one of best, prior, last; got 'first'"):
        tables.summary(outcomes, "first")
    with pytest.raises(OptionError, match="`paper` must be one of amazon, book-crossing, ech"):
        tables.layout(tables.summary(outcomes), "netflix")


# -------------------------------------------------------------------------------------- layout


def made_up(figures):
    """Outcomes of one fold with given (setting number, map, ndcg, mmr)."""
    outcomes = []
    for number, *values in figures:
        one = outcome(table2.rows()[number])
        one.metrics["best"] |= dict(zip(("map", "ndcg", "mmr"), values, strict=True))
        outcomes.append(one)
    return outcomes


def test_the_best_is_bold_and_the_best_uniform_is_bold_and_italic():
    rows = tables.layout(tables.summary(made_up([
        (1, 0.020, 0.09, 100.0), (2, 0.021, 0.07, 100.0), (9, 0.03, 0.08, 20.0), (12, 0.01, 0.01, 9)
    ])))  # fmt: skip
    marks = [[(shown.best, shown.best_uniform) for shown in row.figures] for row in rows]
    no, bold, both, italic = (False, False), (True, False), (True, True), (False, True)
    assert marks == [
        [no, both, italic],  # the best NDCG of all is uniform; equal MMR are both the best
        [italic, no, italic],
        [bold, no, no],
        [no, no, bold],
    ]
    assert writers.markdown(rows).splitlines() == [
        "| method | batch | negatives | MAP % | NDCG % | MMR |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| uniform | 1024 | 1 | 2.00 | ***9.00*** | ***100.0*** |",
        "| uniform | 256 | 1 | ***2.10*** | 7.00 | ***100.0*** |",
        "| popularity | 256 | 1 | **3.00** | 8.00 | 20.0 |",
        "| 2-stage | 256 | 1 | 1.00 | 1.00 | **9.0** |",
    ]


def test_the_papers_figures_beside():
    rows = tables.layout(tables.summary(table_2(folds=1)), "book-crossing")
    lines = writers.markdown(rows).splitlines()
    assert lines[0].endswith("| MMR | MAP %, paper | NDCG %, paper | MMR, paper |")
    assert lines[4].startswith("| uniform | 256 | 1 |")
    assert lines[4].endswith("| 0.93 | 3.50 | 44.5 |")
    assert lines[-1].endswith("| 1.38 | 4.12 | 4.5 |")
    (row,) = tables.layout(tables.summary([outcome(*table2.rows("cml_2017"))]), "book-crossing")
    assert writers.markdown([row]).splitlines()[-1].endswith("| — | — | — |")


def batched(values):
    """Split nine numbers into three times three."""
    return [tuple(values[at : at + 3]) for at in (0, 3, 6)]


def test_the_papers_figures_are_those_of_the_method():
    """Both tables in METHOD.md, where they are at hand: the main rows, and all 15 in order."""
    method = Path(__file__).parents[3] / "shared" / "METHOD.md"
    if not method.is_file():
        pytest.skip("../shared/METHOD.md is not there")
    kinds = {"uniform": "Uniform", "popularity": "Popularity", "2-stage": "TwoStage"}
    found = {}
    for line in method.read_text(encoding="utf-8").splitlines():
        parts = [part.strip() for part in line.replace("*", "").strip("|").split("|")]
        if len(parts) == 6 and parts[0] in kinds:
            figures = [tuple(map(float, part.split("/"))) for part in parts[3:]]
            found[kinds[parts[0]], int(parts[1]), int(parts[2])] = dict(
                zip(("amazon", "book-crossing", "echonest"), figures, strict=True)
            )
    assert len(found) == 8
    assert found == {key: paper.PAPER[key] for key in found}
    kinds = {"Uni": "Uniform", "Pop": "Popularity", "2st": "TwoStage"}
    every = {}
    for line in method.read_text(encoding="utf-8").splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if len(parts) == 12 and parts[0] in kinds:
            means = [float(part.split(" +- ")[0]) for part in parts[3:]]
            every[kinds[parts[0]], int(parts[1]), int(parts[2])] = dict(
                zip(("amazon", "book-crossing", "echonest"), batched(means), strict=True)
            )
    assert list(every) == list(paper.PAPER)
    assert every == paper.PAPER


def test_latex_is_escaped_and_balanced():
    hard = outcome(Setting(HARD, table2.rows()[0].options), level=0.0001)
    rows = tables.layout(tables.summary([hard, *table_2(folds=1)]))
    text = writers.latex(rows, HARD)
    escaped = (
        r"R\&D \textless{}b\textgreater{}50\%\textless{}/b\textgreater{} \textbar{} *x*\_y `z` "
        r"\textbackslash{} \#1 \textasciitilde{}\textasciicircum{}\{\}\$"
    )
    assert text.count(escaped) == 2
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + 16
    assert all(len(re.findall(r"(?<!\\)&", line)) == 5 for line in lines)
    assert body.count(r"\midrule") == 3
    assert text.count(r"\textbf{\textit{") == 3
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")


# -------------------------------------------------------------------------------------- report


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("results")
    outcomes = table_2()
    others = [outcome(setting, rate=1e-3, level=0.001) for setting in table2.rows()[:2]]
    save_all([*outcomes, *others], tmp_path)
    files = report.write_report(tmp_path)
    assert [file.name for file in files] == [
        "amazon.csv", "amazon.md", "amazon.tex", "amazon-significance.csv", "index.html"
    ]  # fmt: skip
    return tmp_path, outcomes


def test_the_csv_file_has_all_in_full(written):
    folder, outcomes = written
    rows = read_csv(folder / "amazon.csv")
    assert len(rows) == 2 * 15 * 11
    for row in rows:
        own = [o for o in outcomes if o.cell["setting"]["name"] == row["setting"]]
        values = [o.metrics[row["which"]][row["metric"]] for o in own]
        assert float(row["mean"]) == np.mean(values)
        assert float(row["std"]) == np.std(values, ddof=1)
        assert (row["data"], row["folds"]) == ("amazon", "4")
    assert len({(row["setting"], row["which"], row["metric"]) for row in rows}) == len(rows)


def test_the_numbers_of_all_files_are_those_of_the_csv_file(written):
    folder, _ = written
    rows = read_csv(folder / "amazon.csv")
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    texts = {end: (folder / f"amazon.{end}").read_text(encoding="utf-8") for end in ("md", "tex")}
    halves = {
        "md": re.split(r"(?m)^## At the last epoch$", texts["md"]),
        "tex": texts["tex"].split(r"\end{table}")[:2],
    }
    for at, which in enumerate(("best", "last")):
        wanted = expected(rows, which)
        assert len(wanted) == 15
        markdown = [
            [cell.strip(" *") for cell in line.strip("|").split("|")]
            for line in halves["md"][at].splitlines() if line.startswith("| ")
        ][2:]  # fmt: skip
        assert {tuple(line[:3]): line[3:] for line in markdown} == wanted
        tex = [
            re.sub(r"\\textbf|\\textit|[{}$]|\\\\$", "", line).replace(r"\pm", "±").split("&")
            for line in halves["tex"][at].splitlines() if line.endswith(r"\\")
        ][1:]  # fmt: skip
        lines = [[cell.strip() for cell in line] for line in tex]
        assert {tuple(line[:3]): line[3:] for line in lines} == wanted
        (html,) = (t for c, t in page.tables.items() if f"At the {which} epoch" in c)
        lines = [[text for text, _ in line] for line in html[1:]]
        assert {tuple(line[:3]): line[3:] for line in lines} == wanted


def test_the_page_marks_the_best(written):
    folder, _ = written
    rows = read_csv(folder / "amazon.csv")
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    (html,) = (t for c, t in page.tables.items() if "At the best epoch" in c)
    for column, (metric, choose) in enumerate((("map", max), ("ndcg", max), ("mmr", min)), 3):
        own = [r for r in rows if r["which"] == "best" and r["metric"] == metric]
        best, uniform = (
            choose((r for r in own if r["sampler"] in samplers), key=lambda r: float(r["mean"]))
            for samplers in (("Uniform", "Popularity", "TwoStage"), ("Uniform",))
        )
        place = tuple(uniform[c] for c in ("method", "batch", "negatives"))
        marked = {
            tuple(text for text, _ in line[:3]): line[column][1] for line in html[1:]
            if line[column][1]
        }  # fmt: skip
        assert marked.pop(place) == "bi"
        if best is not uniform:
            assert marked.pop(tuple(best[c] for c in ("method", "batch", "negatives"))) == "b"
        assert marked == {}


def test_the_comparisons_are_of_users_and_folds(written):
    folder, outcomes = written
    rows = read_csv(folder / "amazon-significance.csv")
    assert len(rows) == 2 * 15 * 14 / 2
    frames = {}
    for one in outcomes:
        part = one.per_user["best"].with_columns(fold=pl.lit(one.cell["fold"]))
        frames.setdefault(one.cell["setting"]["name"], []).append(part)
    row = rows[-1]
    assert row["metric"] == "ndcg"
    found = paired(pl.concat(frames[row["a"]]), pl.concat(frames[row["b"]]), "ndcg")
    assert found.n == 100
    for name, value in vars(found).items():
        assert row[name] == str(value) or float(row[name]) == pytest.approx(value)


def test_the_matrix_shows_the_differences_and_what_is_more_than_chance(tmp_path):
    uniform, popular = table2.rows()[0], table2.rows()[9]
    near = [outcome(table2.rows()[12], fold, level=0.0201) for fold in range(4)]
    save_all([*near, *(outcome(uniform, fold) for fold in range(4)),
              *(outcome(popular, fold, level=0.2) for fold in range(4))], tmp_path)  # fmt: skip
    report.write_report(tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    csv_rows = {(r["a"], r["b"]): r for r in read_csv(tmp_path / "amazon-significance.csv")
                if r["metric"] == "map"}  # fmt: skip
    matrix = [[text for text, _ in line] for line in page.tables["MAP %"]]
    assert matrix[0] == ["", "1", "2", "3"]
    names = [line[0].partition(". ")[2] for line in matrix[1:]]
    assert names == [uniform.name, popular.name, table2.rows()[12].name]
    signs = set()
    for (a, b), row in csv_rows.items():
        i, j = names.index(a), names.index(b)
        difference = 100 * float(row["difference"])
        users, folds = (float(row[f"{n}_p_holm"]) < 0.05 for n in ("wilcoxon", "fold"))
        sign = {(True, True): "●", (True, False): "○", (False, True): "△"}.get((users, folds), "")
        signs.add(sign)
        assert matrix[i + 1][j + 1] == f"{difference:+.2f}{sign}"
        assert matrix[j + 1][i + 1] == f"{-difference:+.2f}{sign}"
        assert matrix[i + 1][i + 1] == ""
    assert signs == {"●", ""}
    (listing,) = (t for c, t in page.tables.items() if c.startswith("MAP %: differences"))
    assert len(listing) == 1 + 3
    first = [text for text, _ in listing[1]]
    row = csv_rows[first[0], first[1]]
    assert first[2] == "100"
    assert first[3] == f"{100 * float(row['difference']):+.3f}"
    assert first[4] == f"{100 * float(row['low']):+.3f} … {100 * float(row['high']):+.3f}"
    assert first[5] == f"{float(row['wilcoxon_p_holm']):.2g}"
    assert first[9] == f"{float(row['fold_p_holm']):.2g}"


@pytest.fixture(scope="module")
def with_priors(tmp_path_factory):
    """Two rows of four folds with a prior, and one of before there was a prior."""
    folder, settings = tmp_path_factory.mktemp("priors"), [table2.rows()[at] for at in (0, 9, 12)]
    outcomes = [
        outcome(setting, fold, level=level, gamma=gamma)
        for setting, level, gamma in zip(
            settings, (0.02, 0.2, 0.1), (0.01, 0.12, None), strict=True
        )
        for fold in range(4)
    ]
    save_all(outcomes, folder)
    report.write_report(folder)
    return folder, outcomes


def test_the_tables_with_the_prior_have_the_numbers_of_the_csv_file(with_priors):
    folder, _ = with_priors
    wanted = {
        key: [*texts, gamma] for (key, texts), gamma in zip(
            expected(read_csv(folder / "amazon.csv"), "prior").items(), ("0.010", "0.120"),
            strict=True)
    }  # fmt: skip
    markdown = (folder / "amazon.md").read_text(encoding="utf-8")
    part = markdown.split("## At the best epoch, with the popularity prior\n")[1].split("\n## ")[0]
    assert "gamma the best by ndcg@50 on the validation part of each fold" in part
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")]
             for line in part.splitlines() if line.startswith("| ")]  # fmt: skip
    assert lines[0][-1] == "gamma"
    assert {tuple(line[:3]): line[3:] for line in lines[2:]} == wanted
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    (html,) = (t for c, t in page.tables.items() if "with the popularity prior. gamma" in c)
    assert {tuple(t for t, _ in line[:3]): [t for t, _ in line[3:]] for line in html[1:]} == wanted
    tex = (folder / "amazon.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{table}") == 3
    assert tex.count(" & gamma ") == 1
    note = "(remove a cell to compute it again): two-stage, 1 negative, batch 256: 0 of 4."
    assert note in page.text
    assert note in tex
    assert markdown.count("| popularity |") == 3
    assert markdown.count("| 2-stage |") == 2


def test_the_prior_is_compared_between_rows_and_with_none(with_priors):
    folder, outcomes = with_priors
    rows = [row for row in read_csv(folder / "amazon-significance.csv") if row["metric"] == "map"]
    uniform, popular, two = (table2.rows()[at].name for at in (0, 9, 12))
    assert [(row["a"], row["which_a"], row["b"], row["which_b"]) for row in rows] == [
        (uniform, "best", popular, "best"), (uniform, "best", two, "best"),
        (popular, "best", two, "best"), (uniform, "prior", popular, "prior"),
        (uniform, "prior", uniform, "best"), (popular, "prior", popular, "best"),
    ]  # fmt: skip
    frames = {
        (o.cell["setting"]["name"], which): [] for o in outcomes for which in o.per_user
    }  # fmt: skip
    for o in outcomes:
        for which, frame in o.per_user.items():
            frames[o.cell["setting"]["name"], which].append(
                frame.with_columns(fold=pl.lit(o.cell["fold"]))
            )
    for row in rows[3:]:
        pair = frames[row["a"], row["which_a"]], frames[row["b"], row["which_b"]]
        found = paired(*map(pl.concat, pair), "map")
        assert float(row["difference"]) == pytest.approx(found.difference)
        assert float(row["wilcoxon_p"]) == pytest.approx(found.wilcoxon_p)
    assert rows[3]["wilcoxon_p_holm"] == rows[3]["wilcoxon_p"]  # one pair with the prior
    assert max(float(r["t_p_holm"]) / float(r["t_p"]) for r in rows[4:]) == pytest.approx(2)
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    matrix = [
        [text for text, _ in line] for line in page.tables["MAP %, with the popularity prior"]
    ]
    assert matrix[1][2].rstrip("●○△") == f"{100 * float(rows[3]['difference']):+.2f}"
    (gains,) = (
        t for c, t in page.tables.items() if c.startswith("MAP % with the popularity prior")
    )
    assert [line[0][0] for line in gains[1:]] == [uniform, popular]
    assert gains[2][3][0] == f"{100 * float(rows[5]['difference']):+.3f}"


@pytest.mark.parametrize(
    ("users", "folds", "sign"),
    [(0.04, 0.04, "●"), (0.04, 0.06, "○"), (0.06, 0.04, "△"), (0.06, 0.06, ""), (0.04, None, "○")],
)
def test_the_marks_are_of_corrected_p_values(users, folds, sign):
    row = {"difference": 0.0123, "wilcoxon_p": 0.001, "fold_p": 0.001, "t_p_holm": 0.001,
           "wilcoxon_p_holm": users, "fold_p_holm": folds}  # fmt: skip
    assert _difference(row, 1) == f"+1.23{sign}"
    assert _difference(row, -1) == f"-1.23{sign}"
    assert _difference(row | {"difference": None}, 1) == "—"


def test_the_page_stands_alone(written):
    folder, _ = written
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(value.startswith("#") for name, value in page.attributes if name in {"src", "href"})
    assert "url(" not in text
    assert "@import" not in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert links <= set(ids)
    assert '<svg id="drawn"></svg>' in text
    assert "<60> curves" in page.text


def test_the_page_says_how_it_was_made(written):
    folder, _ = written
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    made = dict([text for text, _ in row] for row in page.tables[""][1:])
    assert made["fingerprint of the data"] == "f" * 64
    assert made["folds"] == "4, of which 4 used"
    assert made["schedule"] == (
        "at most 30 epochs, evaluated every 2; the best by ndcg@50 on the validation part; stopped "
        "after 5 evaluations without improvement"
    )
    assert made["runs"] == "60, and 2 with learning rates that were not chosen"
    assert made["CPU time"] == f"{(60 * 201.5 + 2 * 200) / 3600:.2f} hours in total"
    assert made["computed by"] == f"nearfar {nf.__version__}"
    assert made["dim"] == "128"
    assert made["optimiser.learning_rate"] == "0.0001"
    assert "batch" not in made
    each = page.tables["Each row; epochs and seconds are means over folds."]
    names = [text for text, _ in each[0]]
    last = dict(zip(names, [text for text, _ in each[-1]], strict=True))
    assert last["setting"] == "two-stage, 5 negatives, batch 256"
    assert (last["folds"], last["best epoch"], last["seconds of training"]) == ("4", "3.5", "101.5")
    assert (last["sampler"], last["sampler.candidates"]) == ("TwoStage", "2000")
    assert (last["spread_out.weight"], last["negatives"]) == ("0.001", "5")
    (rates,) = (t for c, t in page.tables.items() if c.startswith("Choice of the learning rates"))
    assert [[text for text, _ in row] for row in rates] == [
        ["setting", "0.0001", "0.001"],
        *(
            [row.name, f"{0.02 + 0.001 * (at * 7 % 15):.5f}", "0.00100" if at < 2 else ""]
            for at, row in enumerate(table2.rows())
        ),
    ]
    (draws,) = (t for c, t in page.tables.items() if c.startswith("With the vectors"))
    assert [text for text, _ in draws[1]][1:] == [
        "70.00", "2.00", "0.50", "0.10", "123.2", "1.0", "100.0",
        "200.0",
    ]  # fmt: skip


def test_draws_of_outcomes_that_lack_a_column(tmp_path):
    """`false_push` came later: it is averaged over the folds that have it, or not shown."""
    one, other = table2.rows()[:2]
    new, old, older = outcome(one, 0), outcome(one, 1), outcome(other, 0)
    for each in (old, older):
        each.diagnostics["sampling"] = each.diagnostics["sampling"].drop("false_push")
    save_all([new, old, older], tmp_path)
    page = Page(report.write_report(tmp_path)[-1].read_text(encoding="utf-8"))
    (draws,) = (t for c, t in page.tables.items() if c.startswith("With the vectors"))
    place = [text for text, _ in draws[0]].index("their share of the push %")
    assert [row[place][0] for row in draws[1:]] == ["0.50", "—"]


def test_text_from_outside_is_escaped_everywhere(tmp_path):
    save_all([outcome(Setting(HARD, table2.rows()[0].options), data=HARD)], tmp_path)
    (tmp_path / "failed").mkdir()
    cell = outcome(Setting("<script>1</script>", table2.rows()[1].options)).cell
    record = {"cell": cell, "error": "<script>2</script>", "traceback": "</pre><script>3</script>"}
    (tmp_path / "failed" / "a.json").write_text(json.dumps(record))
    files = report.write_report(tmp_path)
    assert [file.parent for file in files] == [tmp_path] * 5
    assert files[0].name == "R-D-b-50-b-x-_y-z-1.csv"
    page = Page(files[-1].read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count(HARD) >= 5
    for number in "123":
        assert f"<script>{number}</script>" in page.text
    text = files[1].read_text(encoding="utf-8")
    escaped = r"R\&D \<b\>50%\</b\> \| \*x\*\_y \`z\` \\ \#1 \~^\{\}$"
    assert escaped in text


def test_cells_that_failed_are_listed(tmp_path):
    (tmp_path / "failed").mkdir()
    setting = table2.rows()[0]
    for name, fold in (("a", 2), ("b", 0)):
        cell = outcome(setting, fold).cell
        record = {"cell": cell, "error": f"DivergedError: {name}", "traceback": f"Trace of {name}"}
        (tmp_path / "failed" / f"{name}.json").write_text(json.dumps(record))
    (tmp_path / "failed" / "c.json").write_text("{")
    (tmp_path / "failed" / "d.json").write_text('{"cell": []}')
    (page,) = report.write_report(tmp_path)
    text = Page(page.read_text(encoding="utf-8")).text
    assert "Cells that failed (4)" in text
    where = "amazon: uniform, 1 negative, batch 4096, fold"
    assert f"{where} 3, learning rate 0.0001: DivergedError: a" in text
    assert f"{where} 1, learning rate 0.0001: DivergedError: b" in text
    assert "Trace of b" in text
    assert "c.json: this record cannot be read" in text
    assert "d.json: this record cannot be read" in text


def test_without_matplotlib_the_page_says_so(tmp_path, drawing, monkeypatch):
    def fail(outcomes):
        raise MissingExtraError("Plots need matplotlib.")

    monkeypatch.setattr(drawing, "page_plots", fail)
    save_all([outcome(table2.rows()[0])], tmp_path)
    page = Page(report.write_report(tmp_path)[-1].read_text(encoding="utf-8"))
    assert "There are no plots. Plots need matplotlib." in page.text
    assert "There is only one setting, so there are no differences." in page.text


def test_the_plots_are_on_the_page(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "nearfar.experiment.plots")
    save_all([outcome(setting) for setting in table2.rows()], tmp_path)
    page = Page(report.write_report(tmp_path)[-1].read_text(encoding="utf-8"))
    assert 0 < page.tags.count("svg") == page.tags.count("figure")


def test_rows_with_fewer_folds_are_named(tmp_path):
    some = [o for o in table_2() if not (o.cell["fold"] > 1 and "two-stage, 5" in
                                         o.cell["setting"]["name"])]  # fmt: skip
    save_all(some, tmp_path)
    files = {
        file.suffix: file.read_text(encoding="utf-8") for file in report.write_report(tmp_path)
    }
    note = "these rows are means over fewer folds: two-stage, 5 negatives, batch 256: 2 of 4."
    for end in (".html", ".md", ".tex"):
        assert note in files[end]


def test_warnings_of_training_are_listed(tmp_path):
    outcomes = table_2(folds=2)
    warned = outcomes[:2] + [replace(o, warnings=(f"bad: {HARD}", "again")) for o in outcomes[2:4]]
    warned += [replace(outcomes[4], warnings=("worse",)), *outcomes[5:]]
    save_all(warned, tmp_path)
    report.write_report(tmp_path)
    text = (tmp_path / "amazon.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("- uniform")]
    names = [one.cell["setting"]["name"] for one in outcomes]
    assert rows == [
        f"- {names[2]} (in 2 of the folds): bad: {writers.escape_markdown(HARD)}",
        f"- {names[4]} (in 1 of the folds): worse",
    ]
    found = Page((tmp_path / "index.html").read_text())
    assert f"{names[2]} (in 2 of the folds): bad: {HARD}" in found.text
    assert "Warnings" in found.text
    assert "again" not in found.text + text


def test_without_warnings_there_is_no_such_section(written):
    for name in ("amazon.md", "index.html"):
        assert "Warnings" not in (written[0] / name).read_text(encoding="utf-8")


def test_data_sets_and_what_cannot_be_compared_are_kept_apart(tmp_path):
    setting = table2.rows()[0]
    save_all(
        [outcome(setting), outcome(setting, data="b", seed=0), outcome(setting, data="b", seed=1),
         outcome(setting, data="A mazon"), outcome(setting, data="a-mazon"),
         outcome(setting, data="amazon-significance"),
         outcome(setting, data="x y"), outcome(setting, data="x-Y")],
        tmp_path,
    )  # fmt: skip
    names = {file.name for file in report.write_report(tmp_path)}
    assert {name for name in names if name.endswith(".md")} == {
        "amazon.md", "b-seed-0.md", "b-seed-1.md", "A-mazon.md", "a-mazon-2.md",
        "amazon-significance-2.md", "x-y.md", "x-Y-2.md",
    }  # fmt: skip
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    for title in ("b (seed 0)", "b (seed 1)", "A mazon"):
        assert title in page.text


def shortened(one, epochs):
    """The same outcome, of a run that was to have fewer epochs."""
    cell = one.cell | {"schedule": one.cell["schedule"] | {"epochs": epochs}}
    return replace(one, cell=cell)


def test_a_run_with_fewer_epochs_is_compared_and_the_page_says_so(tmp_path):
    first, second, *_ = table2.rows()
    save_all([shortened(outcome(first), 7), outcome(second)], tmp_path)
    *_, path = report.write_report(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "at most 7 or 30 epochs, evaluated every 2" in text
    assert pl.read_csv(tmp_path / "amazon.csv")["setting"].n_unique() == 2


def test_of_a_run_with_fewer_and_with_more_epochs_the_longer_is_taken(tmp_path):
    first, *_ = table2.rows()
    short, long = shortened(outcome(first, level=0.9), 7), outcome(first, level=0.1)
    assert tables.longest([long, short]) == tables.longest([short, long]) == [long]
    other_fold = shortened(outcome(first, fold=1), 7)
    assert set(tables.longest([short, other_fold, long])) == {long, other_fold}


def test_the_papers_figures_can_be_shown_beside(tmp_path):
    save_all(table_2("movies", folds=1), tmp_path)
    report.write_report(tmp_path, paper={"movies": "amazon"})
    text = (tmp_path / "movies.md").read_text(encoding="utf-8")
    assert text.count("| 2.73 | 8.23 | 19.6 |") == 1
    assert text.index("| 2.73 |") < text.index("## At the last epoch")
    with pytest.raises(OptionError, match=r"data sets that have results \(movies\); got 'films'"):
        report.write_report(tmp_path, paper={"films": "amazon"})


def test_a_report_is_written_again_in_place(written):
    folder, _ = written
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    report.write_report(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(EmptyDataError, match="has no cells"):
        report.write_report(tmp_path)
    save_all([outcome(table2.rows()[0])], tmp_path)
    (tmp_path / "index.html").mkdir()
    with pytest.raises(StoreError, match=r"Writing .*index.html' failed"):
        report.write_report(tmp_path)
    assert list(tmp_path.glob(".*")) == []
    manifest = next((tmp_path / "cells").rglob(store.MANIFEST))
    manifest.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        report.write_report(tmp_path)

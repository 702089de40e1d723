"""research/pictures.py: what is drawn is what the committed tables say."""

import runpy
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("matplotlib", reason="the extra nearfar[plot] is not installed")
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "research" / "results"


@pytest.fixture
def pictures():
    import matplotlib.pyplot as plt

    yield runpy.run_path(str(ROOT / "research" / "pictures.py"))
    plt.close("all")


def test_the_dial_is_drawn_from_its_table(pictures):
    table = pl.read_csv(RESULTS / "prior_test.csv")
    panels = pictures["dial"](table).axes
    assert len(panels) == table["data"].n_unique() == 4
    for name, axes in zip(pictures["DATA"], panels, strict=True):
        rows = table.filter(data=name)
        model, without = axes.lines
        own = rows.filter(beta=0.8)
        assert list(model.get_xdata()) == own["mmr"].to_list()
        assert list(model.get_ydata()) == pytest.approx([100 * y for y in own["ndcg"]])
        assert [text.get_text() for text in axes.texts] == [f"{x:g}" for x in own["popularity"]]
        (plain,) = rows.filter(beta=0.0).iter_rows(named=True)
        assert without.get_xydata().tolist() == [pytest.approx([plain["mmr"], 100 * plain["ndcg"]])]


def test_bars_are_drawn_from_the_tables_of_the_published_splits(pictures):
    tables = pictures["tables"]()
    panels = pictures["leaderboards"](tables).axes
    for axes, name in zip(panels, ("gowalla", "amazon_cds"), strict=True):
        rows = pl.read_csv(RESULTS / f"leaderboard_{name}.csv").sort("ndcg")
        assert [bar.get_width() for bar in axes.patches] == rows["ndcg"].to_list()
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == rows["method"].to_list()
        black = [bar.get_facecolor()[0] == 0 for bar in axes.patches]
        assert [method for method, own in zip(labels, black, strict=True) if own] == ["nearfar"]


def test_both_are_written(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(pictures["main"].__globals__, "PAGES", tmp_path)
    pictures["main"]()
    assert {path.name for path in tmp_path.iterdir()} == {"dial.png", "leaderboards.png"}
    assert all((ROOT / "docs" / "results" / path.name).is_file() for path in tmp_path.iterdir())

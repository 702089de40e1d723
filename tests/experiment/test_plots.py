"""The pictures: what is in them, that they can be told apart, and that they are the same always."""

import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

import nearfar
from conftest import import_path
from nearfar.errors import MissingExtraError
from nearfar.experiment import plots
from nearfar.experiment.cells import Cell, Outcome, Setting
from nearfar.method.options import STRATEGIES, Options
from nearfar.method.sampling import Popularity, TwoStage, Uniform
from nearfar.training.schedule import Schedule

SETTINGS = [
    Setting("uniform, 1 <negative> & $so on$", Options(sampler=Uniform(), negatives=1)),
    Setting("uniform, 5 negatives", Options(sampler=Uniform(), negatives=5)),
    Setting("popularity, 5 negatives", Options(sampler=Popularity(), negatives=5)),
    Setting("2-stage, 5 negatives", Options(sampler=TwoStage(), negatives=5)),
]
TITLES = [
    "Validation NDCG over the epochs",
    "MAP against MMR",
    "Exposure by decile of popularity",
    "Cosines of pairs of items",
]


def outcome(setting, fold=0, *, data="toy", level=1.0, mmr=30.0, **parts):
    cell = Cell(data, "f", setting, fold, 4, 0, Schedule(k=20), 0.1)
    history = pl.DataFrame(
        {"epoch": [1, 2, 3, 4], "validation_ndcg": [None, 0.1 * level, float("nan"), 0.2 * level]}
    )
    deciles = np.arange(1, 11)
    edges = np.linspace(-1, 1, 101)
    middle = (edges[1:] + edges[:-1]) / 2
    filled = {
        "history": history,
        "metrics": {
            "best": {"map": 0.05 * level, "ndcg": 0.1 * level, "mmr": mmr},
            "last": {"map": 0.9, "ndcg": 0.9, "mmr": 999.0},
        },
        "diagnostics": {
            "exposure": pl.DataFrame(
                {
                    "decile": deciles,
                    "items": [3] * 10,
                    "recommendations": (11 - deciles) / 55,
                    "interactions": deciles / 55,
                }
            ),
            "cosines": pl.DataFrame(
                {
                    "bin_low": edges[:-1],
                    "bin_high": edges[1:],
                    "positives": np.exp(middle) * level,
                    "negatives": np.exp(-middle),
                    "density": 1 - middle**2,
                }
            ),
        },
        **parts,
    }
    return Outcome(cell.to_dict(), 4, 4, 1.0, 1.0, **filled)


def grid():
    return [
        outcome(setting, fold, level=1 + 0.1 * i + 0.01 * fold, mmr=30.0 * (1 + i) + fold)
        for i, setting in enumerate(SETTINGS)
        for fold in range(2)
    ]


def texts(svg):
    """All texts of a picture, which must be well-formed."""
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter() if e.tag.endswith("}text")]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, to look at their numbers."""
    figures = []
    save = Figure.savefig

    def kept(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


@pytest.fixture(scope="module")
def page():
    return plots.page_plots(grid())


def test_a_page_has_all_pictures_with_axes_and_units(page):
    found = page
    assert list(found) == TITLES
    said = {title: texts(svg) for title, svg in found.items()}
    assert "validation NDCG@20 (%)" in said[TITLES[0]]
    assert "epoch" in said[TITLES[0]]
    assert "MAP@20 (%)" in said[TITLES[1]]
    assert "MMR@20 (training interactions, log scale): low is less biased" in said[TITLES[1]]
    assert "share (%)" in said[TITLES[2]]
    assert (
        "decile of the items by training interactions (1: the most popular tenth)"
        in (said[TITLES[2]])
    )
    assert "density (per unit of s)" in said[TITLES[3]]
    assert "random points, p(s), d = 128" in said[TITLES[3]]
    for title in TITLES[:2]:
        for setting in SETTINGS:
            assert setting.name in said[title]
    for title, svg in found.items():
        assert svg.startswith(f'<svg role="img" aria-label="{title}" ')
        assert not re.search("<script|<image|<metadata|<!DOCTYPE", svg)
        outside = set(re.findall(r'https?://[^"]*', svg))
        assert outside == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_on_the_page_and_references_lead_somewhere(page):
    for svg in page.values():
        ids = set(re.findall(r' id="([^"]*)"', svg))
        references = set(re.findall(r'(?:url\(|href=")#([^)"]*)', svg))
        assert references
        assert references <= ids
    every = re.findall(r' id="([^"]*)"', "".join(page.values()))
    assert len(every) == len(set(every)) > 100


def test_the_curve_is_that_of_the_first_fold_where_it_was_evaluated(drawn):
    plots.training_curves(grid())
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["uniform", "popularity", "2-stage"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 2, 2]
    curve, best = figure.axes[2].lines
    assert curve.get_xdata().tolist() == [2, 4]
    assert curve.get_ydata() == pytest.approx([13.0, 26.0])
    assert best.get_xdata().tolist() == [4]
    assert best.get_ydata() == pytest.approx([26.0])
    assert best.get_markersize() > curve.get_markersize()


def test_lines_differ_without_colour(drawn):
    many = [Setting(f"row {i}", Options(negatives=1 + i)) for i in range(40)]
    outcomes = [outcome(setting) for setting in many]
    plots.training_curves(outcomes)
    looks = [(line.get_marker(), line.get_linestyle()) for line in drawn[0].axes[0].lines[::2]]
    assert len(set(looks)) == len(looks) == 40
    plots.accuracy_against_popularity(outcomes[:33])
    points = [bar[0] for bar in drawn[1].axes[0].containers]
    assert len({(p.get_marker(), p.get_markerfacecolor()) for p in points}) == 33


def test_map_against_mmr_shows_means_and_deviations_over_folds(drawn):
    outcomes = [
        outcome(SETTINGS[0], 0, level=1.0, mmr=20.0),
        outcome(SETTINGS[0], 1, level=2.0, mmr=40.0),
        outcome(SETTINGS[2], 0, level=3.0, mmr=500.0),
    ]
    plots.accuracy_against_popularity(outcomes)
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    first, second = axes.containers
    assert first[0].get_xdata()[0] == pytest.approx(30.0)
    assert first[0].get_ydata()[0] == pytest.approx(7.5)
    assert second[0].get_xdata()[0] == pytest.approx(500.0)
    across, upward = (bar.get_segments()[0] for bar in first[2])
    deviation = np.sqrt(2.0) / 2
    assert across[:, 0] == pytest.approx([30 - 20 * deviation, 30 + 20 * deviation])
    assert upward[:, 1] == pytest.approx([7.5 - 5 * deviation, 7.5 + 5 * deviation])


def test_with_the_prior_a_line_leads_from_where_the_setting_is_without(drawn):
    prior = {"map": 0.07, "ndcg": 0.2, "mmr": 90.0}
    bare = {"history": pl.DataFrame({"epoch": [1]}), "diagnostics": {}}
    first = outcome(SETTINGS[0], **bare)
    second = outcome(SETTINGS[2], level=2.0, mmr=20.0, **bare)
    second.metrics["prior"] = prior
    assert plots.accuracy_against_popularity([first], "prior") is None
    found = plots.page_plots([first, second])
    assert list(found) == ["MAP against MMR", "MAP against MMR, with the popularity prior"]
    axes = drawn[1].axes[0]
    (marker,) = axes.containers
    assert (marker[0].get_xdata()[0], marker[0].get_ydata()[0]) == pytest.approx((90.0, 7.0))
    (line,) = [line for line in axes.lines if line.get_color() == "0.7"]
    assert line.get_xdata() == pytest.approx([20.0, 90.0])
    assert line.get_ydata() == pytest.approx([10.0, 7.0])


@pytest.mark.parametrize(
    ("least", "most"), [(0.0, 5.0), (0.3, 50.0), (3.0, 900.0), (60.0, 90.0), (61.0, 63.0)]
)
def test_the_popularity_axis_has_numbers_whatever_the_range(drawn, least, most):
    svg = plots.accuracy_against_popularity(
        [outcome(SETTINGS[1], mmr=least), outcome(SETTINGS[2], mmr=most)]
    )
    axis = drawn[0].axes[0].xaxis
    low, high = drawn[0].axes[0].get_xlim()
    assert low < least < most < high
    ticks = axis.get_major_ticks() + axis.get_minor_ticks()
    shown = [t for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()]
    assert len(shown) >= 2
    for tick in shown:
        assert float(tick.label1.get_text()) == pytest.approx(tick.get_loc(), rel=1e-4)
    assert "$" not in svg


def test_exposure_is_that_of_the_best_setting_of_each_sampler(drawn):
    svg = plots.exposure_by_decile(grid())
    assert "recommended: uniform, 5 negatives" in texts(svg)
    assert not any("1 <negative>" in text for text in texts(svg))
    bars = drawn[0].axes[0].containers
    assert len(bars) == 4
    heights = [[patch.get_height() for patch in group] for group in bars]
    assert heights[0] == pytest.approx(np.arange(1, 11) / 0.55)
    assert heights[1] == pytest.approx(np.arange(10, 0, -1) / 0.55)
    looks = {(group[0].get_facecolor(), group[0].get_hatch()) for group in bars}
    assert len(looks) == 4


def test_bars_of_all_samplers_look_different(drawn):
    kinds = [kind() for kind in STRATEGIES["sampler"]]
    assert set(plots.KINDS) == {type(kind).__name__ for kind in kinds}
    plots.exposure_by_decile(
        [outcome(Setting(type(kind).__name__, Options(sampler=kind))) for kind in kinds]
    )
    bars = drawn[0].axes[0].containers
    looks = {(group[0].get_facecolor(), group[0].get_hatch()) for group in bars}
    assert len(looks) == len(bars) == 1 + len(kinds)


def test_cosines_are_means_over_the_folds(drawn):
    plots.cosines_beside_chance(grid())
    axes = drawn[0].axes
    assert [a.get_title() for a in axes] == [s.name for s in SETTINGS[1:]]
    chance, positives, negatives = axes[0].patches
    middle = np.arange(-0.99, 1, 0.02)
    assert chance.get_data().values == pytest.approx(1 - middle**2)
    assert positives.get_data().values == pytest.approx(1.105 * np.exp(middle))
    assert positives.get_linestyle() != negatives.get_linestyle()
    assert positives.get_data().edges == pytest.approx(np.linspace(-1, 1, 101))


def test_pictures_without_their_data_are_left_out():
    bare = {
        "history": pl.DataFrame({"epoch": [1]}),
        "diagnostics": {},
        "metrics": {"best": {"map": None, "ndcg": None, "mmr": None}},
    }
    assert plots.page_plots([outcome(SETTINGS[0], **bare)]) == {}
    null = pl.DataFrame({"epoch": [1], "validation_ndcg": [None]})
    assert plots.training_curves([outcome(SETTINGS[0], history=null)]) is None
    tables = outcome(SETTINGS[0]).diagnostics
    shown = plots.page_plots([outcome(SETTINGS[0], **bare | {"diagnostics": tables})])
    assert list(shown) == TITLES[2:]


def test_data_sets_have_pictures_of_their_own():
    found = plots.page_plots([outcome(SETTINGS[0], data=name) for name in ("b", "a")])
    assert list(found) == [f"{name}: {title}" for name in "ab" for title in TITLES]


@pytest.mark.full
def test_pictures_do_not_depend_on_the_order_of_the_outcomes(page):
    outcomes = grid()
    random.Random(0).shuffle(outcomes)
    assert plots.page_plots(outcomes) == page


@pytest.mark.full
def test_pictures_do_not_depend_on_settings_the_process_or_the_day(page, tmp_path):
    """Another process, with another hash seed, date and matplotlib configuration."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.hashsalt: other\n")
    source = (
        "import os, sys; sys.path += sys.argv[1].split(os.pathsep); import test_plots as t\n"
        "sys.stdout.write(''.join(t.plots.page_plots(t.grid()).values()))"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "SOURCE_DATE_EPOCH": "1",
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONPATH": str(Path(nearfar.__file__).parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", source, import_path(__file__)],
        env=environment, capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert done.stdout == "".join(page.values())


def test_the_users_configuration_is_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.page_plots(grid()[:1])
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plots.page_plots, plots.training_curves):
        with pytest.raises(MissingExtraError, match=r"pip install nearfar\[plot\]"):
            draw(grid())

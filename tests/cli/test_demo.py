"""The demonstration: on data of our own, without any data, and on the real films."""

import json
import math

import numpy as np
import polars as pl
import pytest

from nearfar import datasets
from nearfar.cli import app, demo
from nearfar.data.interactions import Interactions
from nearfar.datasets import cache
from nearfar.errors import SourceError

TITLES = {str(i): f"Film {i} ({1950 + i % 40})" for i in range(60)}


@pytest.fixture
def films(monkeypatch):
    """Two tastes instead of MovieLens: even users like even films, which are westerns."""
    pairs = [(u, i) for u in range(60) for i in range(60) if (u + i) % 2 == 0 and (u * i) % 3]
    ratings = pl.DataFrame({"user": [str(u) for u, _ in pairs], "item": [str(i) for _, i in pairs]})
    items = pl.DataFrame({"item_id": [str(i) for i in range(60)]}).with_columns(
        title=pl.format("Film {} ({})", "item_id", 1950 + pl.int_range(60) % 40),
        genres=pl.Series(["Western" if i % 2 == 0 else "Drama | War" for i in range(60)]),
    )
    found = Interactions.from_frame(ratings).with_item_table(items)
    monkeypatch.setattr(datasets, "locate", lambda name, path: ("the file", "a test"))
    monkeypatch.setattr(datasets, "load", lambda name, path: found)
    return found


def test_run_gives_the_figures(films):
    found = demo.run(epochs=9, progress=False, threads=1)
    assert found.source == "a test"
    assert len(found.train) + len(found.test) == len(films)
    assert found.model.history.height == 9
    assert set(found.evaluations) == {"CML", "popularity", "random"}
    parts = {"data", "compilation", "training", "evaluation", "new films"}
    assert set(found.seconds) == parts
    assert found.film == TITLES[demo.FILM]
    assert len(found.recommended) == len(found.neighbours) == demo.SHOWN
    had = {TITLES[i] for i in found.train.to_frame().filter(user_id=found.user)["item_id"]}
    assert set(found.liked) <= had
    assert not had & {title for title, _ in found.recommended}
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert figures["evaluations"]["CML"]["metrics"] == found.evaluations["CML"].metrics


def test_the_same_seed_gives_the_same_figures(films):
    one, two, other = (
        demo.run(epochs=2, progress=False, seed=seed).evaluations["CML"].metrics
        for seed in (1, 1, 2)
    )
    assert one == pytest.approx(two, rel=0.01)
    assert one != pytest.approx(other, rel=0.01)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_command_prints_it(films, capsys, words):
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--epochs", "1", *words])
    assert not ended.value.code
    out, _ = capsys.readouterr()
    if words:
        assert json.loads(out)["source"] == "a test"
    else:
        for text in (
            "from a test",
            "popularity",
            "NDCG",
            f"Nearest to {TITLES[demo.FILM]}",
            f"{TITLES[films.item_ids.id(0)]} (Drama, War): users ",
            " of 10, and ",
            "Seconds",
        ):
            assert text in out


def test_without_any_source_it_says_what_it_tried(monkeypatch, tmp_path, capsys):
    def fail(*_args, **_options):
        raise SourceError("no network")

    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "download", fail)
    monkeypatch.setattr(cache, "download_wheel", fail)
    with pytest.raises(SystemExit) as ended:
        app(["demo"])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "ml-100k.zip: no network" in err
    assert "recbole" in err


def test_a_copy_that_is_not_there_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--data", str(tmp_path / "none.zip")])
    assert ended.value.code == 1
    assert "none.zip" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.usefixtures("ml_100k")
@pytest.mark.full
def test_cml_beats_popularity_by_half_on_movielens():
    found = demo.run(progress=False)
    ndcg = {name: one["ndcg"] for name, one in found.evaluations.items()}
    assert ndcg["CML"] >= 1.5 * ndcg["popularity"]
    assert ndcg["random"] < 0.2 * ndcg["popularity"]
    titles = [title for title, _ in found.neighbours]
    assert found.film == "Star Wars (1977)"
    assert "Return of the Jedi (1983)" in titles
    assert all(math.isfinite(score) for _, score in found.recommended)
    assert [film.title.split(" (")[0] for film in found.new_films] == [
        "Toy Story", "Terminator 2: Judgment Day", "Scream",
    ]  # fmt: skip
    assert all(np.mean(film.liked) >= 1.5 * film.share for film in found.new_films)

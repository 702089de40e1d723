"""The demo: a model of MovieLens-100K, compared with simple recommenders.

`run` computes the results; ``nearfar demo`` prints them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar import datasets
from nearfar.cli import new_films
from nearfar.cli.new_films import NewFilm
from nearfar.data import split
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.evaluation.ranking import evaluate
from nearfar.evaluation.result import Evaluation
from nearfar.model.cml import CML
from nearfar.runtime.progress import Bars, shows

DATA: Final = "ml-100k"
EPOCHS: Final = 30
TEST_SHARE: Final = 0.25
VALIDATION_SHARE: Final = 0.1
EVERY: Final = 3
K: Final = 50
SHOWN: Final = 8
"""Number of films in the lists that are shown."""
USER: Final = "196"
FILM: Final = "50"
"""Star Wars (1977)."""


@dataclass(frozen=True)
class Demo:
    """The results of the demo."""

    source: str
    """The source of the data, in words."""
    train: Interactions
    test: Interactions
    model: CML
    evaluations: dict[str, Evaluation]
    """By the name of the recommender: CML, popularity, random."""
    liked: tuple[str, ...]
    """Some titles of the shown user in the training part, the most popular first."""
    recommended: tuple[tuple[str, float], ...]
    """Titles and scores for the shown user."""
    neighbours: tuple[tuple[str, float], ...]
    """Titles and scores of the films nearest to the shown one."""
    user: str
    """Id of the shown user."""
    film: str
    """Title of the shown film."""
    hybrid: CML
    """A model that learned from genres and years too, with the films that nobody has rated."""
    new_films: tuple[NewFilm, ...]
    """These films, and who would like them."""
    seconds: dict[str, float]
    """Seconds by part: data, compilation, training, evaluation, new films."""

    def to_dict(self) -> dict[str, Any]:
        """Return all results as JSON values."""
        return {
            "source": self.source,
            "n_users": self.train.n_users,
            "n_items": self.train.n_items,
            "n_train_pairs": self.train.n_pairs,
            "n_test_pairs": self.test.n_pairs,
            "epochs": self.model.history.height,
            "best_epoch": self.model.best_epoch,
            "options": self.model.options.to_dict(),
            "evaluations": {name: one.to_dict() for name, one in self.evaluations.items()},
            "user": self.user,
            "liked": list(self.liked),
            "recommended": [{"title": t, "score": s} for t, s in self.recommended],
            "film": self.film,
            "neighbours": [{"title": t, "score": s} for t, s in self.neighbours],
            "new_films": [film.to_dict() for film in self.new_films],
            "seconds": self.seconds,
        }


def run(
    path: str | PathLike[str] | None = None,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | None = None,
) -> Demo:
    """Load MovieLens-100K, train, and compare with the popularity and random recommenders.

    A second, small model learns from genres and years too, without three films, and then finds who
    would like them; see `nearfar.cli.new_films`.

    The epoch is chosen on a tenth of the training part. The test part, a quarter of each user's
    films, is used once, at the end.

    Parameters
    ----------
    path : path, optional
        A local copy of the data; see `nearfar.datasets.load`.
    epochs : int
        Maximum number; the best on the validation part is kept.
    seed : int
        Seed of the split and of the training.
    threads : int, optional
        Number of threads; all available cores if None.
    progress : bool, optional
        Whether to show the progress; if None, only if standard error is a terminal.

    Raises
    ------
    SourceError
        The data cannot be found; the message lists the attempts.
    """
    show, clock = shows(progress), _Clock()
    with _doing("Looking for MovieLens-100K", show), clock.part("data"):
        file, where = datasets.locate(DATA, path)
        data = datasets.load(DATA, file)
        train, test = split.ratio(data, test=TEST_SHARE, seed=seed)
    with _doing("Compiling (once on a machine)", show), clock.part("compilation"):
        _warm_up(threads)
    model = CML()
    with clock.part("training"):
        model.fit(train, epochs=epochs, validation=VALIDATION_SHARE, every=EVERY, k=K,
                  seed=seed, threads=threads, progress=show)  # fmt: skip
    with clock.part("evaluation"):
        evaluations = {
            name: evaluate(one, train, test, k=K, threads=threads, progress=show)
            for name, one in _recommenders(model, train, seed).items()
        }
    with _doing("Learning from genres and years", show), clock.part("new films"):
        hybrid, unseen = new_films.train(data, seed=seed, threads=threads)
    return Demo(
        where, train, test, model, evaluations, **_examples(model, train),
        hybrid=hybrid, new_films=unseen, seconds=clock.seconds,
    )  # fmt: skip


def _recommenders(model: CML, train: Interactions, seed: int) -> dict[str, Any]:
    return {
        "CML": model,
        "popularity": MostPopular(train),
        "random": Random(train.n_users, train.n_items, seed=seed),
    }


def _warm_up(threads: int | None) -> None:
    """Call every kernel once on tiny data, so that compilation is not timed as training."""
    rng = np.random.default_rng(0)
    pairs = {(str(u), str(i)) for u, i in rng.integers(0, 40, (400, 2))}
    data = Interactions.from_pairs(pairs)
    train, test = split.ratio(data)
    model = CML().fit(train, epochs=1, validation=0.2, threads=threads, progress=False)
    for one in _recommenders(model, train, 0).values():
        evaluate(one, train, test, k=K, threads=threads)
    films = pl.DataFrame({"item_id": data.item_ids.values}).with_columns(
        title=pl.format("Film ({})", 1950 + pl.int_range(pl.len())), genres=pl.lit("Drama | War")
    )
    new_films.train(data.with_item_table(films), epochs=1, threads=threads)


def _examples(model: CML, train: Interactions) -> dict[str, Any]:
    """Return the example lists of one user and one film."""
    user, film = _known(train.user_ids, USER), _known(train.item_ids, FILM)
    had = train.positives(train.user_ids.row(user))
    favourites = had[np.argsort(-train.item_counts[had], kind="stable")][:SHOWN]

    def titled(found: pl.DataFrame) -> tuple[tuple[str, float], ...]:
        return tuple(zip(_titles(train, found["item_id"]), found["score"], strict=True))

    return {
        "liked": _titles(train, train.item_ids.take(favourites)),
        "recommended": titled(model.recommend(user, k=SHOWN)),
        "neighbours": titled(model.similar_items(film, k=SHOWN)),
        "user": user,
        "film": _titles(train, [film])[0],
    }


def _titles(train: Interactions, item_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the titles of items, or the id of an item without one."""
    ids = list(item_ids)
    return tuple(title or id_ for id_, title in zip(ids, train.titles(ids), strict=True))


def _known(ids: Ids, wanted: str) -> str:
    return wanted if wanted in ids else str(ids.id(0))


class _Clock:
    """Wall-clock seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun


@contextmanager
def _doing(what: str, shown: bool) -> Iterator[None]:
    """Show a progress indicator for a step of unknown length."""
    with Bars(shown, "busy", transient=True) as bar:
        bar.show(what)
        yield

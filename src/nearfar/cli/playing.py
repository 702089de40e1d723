"""``nearfar demo``: prints the results of `nearfar.cli.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import demo as library
from nearfar.cli import show
from nearfar.cli.fitting import Json
from nearfar.evaluation.metrics import REGISTRY, names


def demo(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A local copy: ml-100k.zip, its folder, or a RecBole wheel. [default: the cache,"
            " then the official address, then the package index]",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Maximum number; the best on a validation part is kept.")
    ] = library.EPOCHS,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    threads: Annotated[int | None, typer.Option(help="[default: all available cores]")] = None,
    json: Json = False,
) -> None:
    """Train on MovieLens-100K, compare with popularity, and recommend some films."""
    found = library.run(data, epochs=epochs, seed=seed, threads=threads)
    if json:
        show.emit(found.to_dict())
        return
    train, test = found.train, found.test
    show.say(f"MovieLens-100K, ratings of 4 and 5, from {found.source}:")
    show.say(
        f"{train.n_users:,} users, {train.n_items:,} films, {train.n_pairs:,} interactions to train"
        f" on, {test.n_pairs:,} to test on."
    )
    show.say(f"{found.model.history.height} epochs; the best on validation was"
             f" {found.model.best_epoch}.\n")  # fmt: skip
    columns = names("short")
    rows = [
        (name, *(show.figure(metric, one[metric]) for metric in columns))
        for name, one in found.evaluations.items()
    ]
    show.table(
        f"The best {library.K} films for each user",
        ["", *(REGISTRY[name].title for name in columns)],
        rows,
    )
    show.say("MMR: median number of users of the recommended films; lower is less popular.\n")
    show.say(f"User {found.user} likes {', '.join(found.liked[:5])}.\n")
    for title, films in (
        (f"Recommended to user {found.user}", found.recommended),
        (f"Nearest to {found.film}", found.neighbours),
    ):
        show.table(title, ["film", "score"], [(film, f"{score:.3f}") for film, score in films])
    times = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found.seconds.items())
    show.say(f"Seconds: {times}.")

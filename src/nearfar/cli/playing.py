"""``nearfar demo``: prints the results of `nearfar.cli.demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import demo as library
from nearfar.cli import show
from nearfar.cli.fitting import Json
from nearfar.cli.new_films import NewFilm
from nearfar.evaluation.metrics import REGISTRY, names
from nearfar.model.fitted import KIND
from nearfar.runtime import store


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
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="MODEL",
            help="Save the model that knows the new films, for `nearfar serve`.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train on MovieLens-100K, compare with popularity, and recommend some films.

    At the end, films that nobody has rated find their users by genres and year.
    """
    if out is not None:
        store.check_replaceable(out, kind=KIND)
    found = library.run(data, epochs=epochs, seed=seed, threads=threads)
    if out is not None:
        found.hybrid.save(out)
    if json:
        show.emit(found.to_dict())
        return
    _show(found)
    if out is not None:
        show.say(f"The model with the new films is in {out}: `nearfar serve {out}` shows it.")


def _show(found: library.Demo) -> None:
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
    _show_new(found.new_films)
    times = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found.seconds.items())
    show.say(f"Seconds: {times}.")


def _show_new(films: Sequence[NewFilm]) -> None:
    """Print new films and their users; those who do like one have a star."""
    show.say(
        "Three films that nobody has rated, placed by their genres and year alone, and who would"
        " like them. A star: the user did rate it 4 or 5, in the ratings that were taken out."
    )
    for film in films:
        users = zip(film.users, film.liked, strict=True)
        named = ", ".join(f"{user}{'*' if liked else ''}" for user, liked in users)
        hits = f"{sum(film.liked)} of {len(film.liked)}, and {100 * film.share:.0f} % of all users"
        show.say(f"  {film.title} ({film.genres}): users {named} ({hits}).")
    show.say("")

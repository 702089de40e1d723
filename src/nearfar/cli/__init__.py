"""The command line: it parses, calls the library and prints.

Exit codes: 0 for success; 1 for an error that nearfar explains in a line on stderr; 2 for invalid
flags or combinations of flags; 130 after an interrupt.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nearfar.cli import (
    asking,
    changing,
    evaluating,
    experiments,
    explaining,
    exporting,
    fetching,
    fitting,
    indexing,
    launching,
    playing,
    preparing,
    serving,
    show,
    trying,
)
from nearfar.cli.binding import FlagError, local, names_of
from nearfar.errors import NearfarError, NearfarWarning
from nearfar.version import VERSION

app = typer.Typer(
    name="nearfar",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_EXAMPLES: dict[Callable[..., None], str] = {
    playing.demo: "nearfar demo",
    preparing.prepare: "nearfar prepare ratings.csv -o data/ --value rating --min-value 4",
    fitting.fit: "nearfar fit data/ -o model/ --holdout 0.25 --validation 0.1 --epochs 60",
    changing.update: "nearfar update model/ new.csv",
    changing.add_items: "nearfar add-items model/ new-films.parquet",
    evaluating.evaluate: "nearfar evaluate model/ data/ --baselines",
    evaluating.front: "nearfar front model/ data/ --popularity 0 --popularity 1",
    fitting.crossvalidate: "nearfar crossvalidate data/ --folds 4 --preset paper_2019"
    " --sampler uniform",
    trying.tune: "nearfar tune data/ -o study/ --holdout 0.25 --trials 30",
    experiments.table2: "nearfar table2 data/ -o results/",
    asking.recommend: "nearfar recommend model/ --user 196 --k 10",
    asking.similar: "nearfar similar model/ --item 50",
    explaining.explain: "nearfar explain model/ --user 196 --item 50",
    indexing.index: "nearfar index model/ -o index/ --recall 0.95 --k 10",
    exporting.batch: "nearfar batch model/ -o lists/ --k 10",
    exporting.export: "nearfar export model/ --to pgvector postgresql://localhost/shop",
    changing.project: "nearfar project model/ --method umap",
    serving.serve: "nearfar serve model/ --port 8000",
}
"""Every command, in the order of the help, with an example."""


def _reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Turn an error of a command into a line on stderr and an exit code, a warning into a line."""
    named = names_of(command)

    @functools.wraps(command)
    def reported(**values: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", NearfarWarning)
                warnings.showwarning = _warn
                command(**{name: local(one, named[name]) for name, one in values.items()})
        except FlagError as error:
            show.note(f"nearfar: {error}")
            raise typer.Exit(2) from error
        except BrokenPipeError:
            raise
        except (NearfarError, OSError) as error:
            show.note(f"nearfar: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            show.note("nearfar: interrupted.")
            raise typer.Exit(130) from error

    return reported


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    if launching.is_first():
        show.note(f"nearfar: warning: {message}")


for _command, _example in _EXAMPLES.items():
    app.command(epilog=f"Example: {_example}")(_reporting(_command))
app.add_typer(fetching.app(_reporting), name="datasets")


def _version(asked: bool) -> None:
    if asked:
        show.say(f"nearfar {VERSION}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Collaborative metric learning: recommendations from points near each user."""


def main() -> None:
    """Run the command line."""
    show.replace_what_cannot_be_shown()
    try:
        app()
    except KeyboardInterrupt:  # outside a command
        sys.exit(130)

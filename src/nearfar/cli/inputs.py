"""The inputs of commands: data, typed ids, and options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nearfar import readers
from nearfar.cli import show
from nearfar.cli.binding import build
from nearfar.cli.flags import flags_of
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, StoreError, UnknownIdError
from nearfar.method.options import STRATEGIES, Options
from nearfar.method.presets import PRESETS
from nearfar.model.cml import CML
from nearfar.prepare import Rules
from nearfar.runtime import store
from nearfar.runtime.checks import local_path
from nearfar.runtime.devices import describe, resolve, resolve_ranking
from nearfar.search.item_index import ItemIndex
from nearfar.training.schedule import Schedule


@dataclass(frozen=True)
class Circumstances:
    """The circumstances of one run; see `nearfar.CML.fit`."""

    validation: float | None = None
    """Share of each user's training interactions used to choose the best epoch; without it the last
    epoch is kept."""
    checkpoint: Path | None = None
    """Folder in which the run is saved; if it contains the same run, training resumes from it."""
    seed: int = 0
    """Seed of all random numbers."""
    threads: int | None = None
    """Number of threads; all available cores if not given. The result does not depend on it."""
    device: str = "cpu"
    """"cpu"; "cuda", "cuda:1" and so on; "auto", a GPU if there is one; "reference": plain loops
    in float64, slow; or "torch:" and any device of PyTorch."""
    fast: bool = False
    """On a GPU: matrix products on tensor cores in TF32 (10 bits of mantissa instead of 23)."""
    progress: bool | None = None
    """Show a progress bar; by default only if stderr is a terminal."""


OPTION_FLAGS = flags_of(Options, STRATEGIES, without=("items", "users"))
"""Hybrids follow from files of features; see `nearfar.cli.describing`."""
SCHEDULE_FLAGS = flags_of(Schedule)
RUN_FLAGS = flags_of(Circumstances)
RULE_FLAGS = flags_of(Rules)


def circumstances_of(given: Mapping[str, Any]) -> Circumstances:
    """Return the circumstances of a run from the given flags."""
    how: Circumstances = build(Circumstances(), RUN_FLAGS, given)
    return replace(how, device=training_device(how.device))


def training_device(asked: str) -> str:
    """Return the device for training, and print it if `asked` is "auto"."""
    return _said(asked, resolve(asked))


def ranking_device(asked: str) -> str:
    """Return the device for ranking, and print it if `asked` is "auto"."""
    return _said(asked, resolve_ranking(asked))


def _said(asked: str, name: str) -> str:
    """Print the device if it was chosen automatically."""
    if asked == "auto":
        show.note(f"nearfar: the device is {describe(name)}.")
    return name


def options_of(preset: str | None, given: Mapping[str, Any]) -> Options:
    """Return the options of a model: those of the preset or the defaults, with the given flags.

    Arguments of the preset are passed to the preset, because several of its options can depend on
    one argument (as lambda_g of the paper on the number of negatives).
    """
    base = Options()
    if preset is not None:
        make: Any = PRESETS[preset]
        takes = inspect.signature(make).parameters
        base = make(**{key: value for key, value in given.items() if key in takes})
    options: Options = build(base, OPTION_FLAGS, given, STRATEGIES)
    return options


def load_data(path: Path, like: Interactions | None = None) -> Interactions:
    """Load prepared interactions, or read a plain table of users and items.

    With `like`, ids are converted to the kind of its ids, text or integers, if nothing is lost.

    Raises
    ------
    StoreError
        The folder is missing or damaged, or contains something else.
    DataError
        The table cannot be read without further flags, or its ids cannot be converted.
    """
    data = _read(path)
    if like is None:
        return data
    try:
        return data.with_ids_like(like)
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from error


def _read(path: Path) -> Interactions:
    is_saved = path.is_dir() and ((path / store.MANIFEST).exists() or not readers.is_parts(path))
    if not path.exists():
        raise StoreError(
            f"{str(path)!r} does not exist; give a folder that `nearfar prepare` wrote, or a file"
            " of users and items."
        )
    if is_saved:
        return Interactions.load(path)
    try:
        return Interactions.read(path)
    except DataError as error:
        raise DataError(
            f"{as_flags(error)} Flags for columns, thresholds and file formats belong to"
            f" `nearfar prepare {path} -o data/`: run it first, and pass `data/` here."
        ) from error


def as_flags(error: DataError) -> str:
    """Return the message of the library with its arguments written as flags."""
    text = str(error).replace("`has_header=False`", "`--no-header`")
    return re.sub("`(user|item|value|time|separator|encoding|quotes)=?`", r"`--\1`", text)


def ids_as_flags(error: UnknownIdError, what: str | None = "users") -> UnknownIdError:
    """Return the error about users, or items, with its remedies written as flags.

    `what` can be skipped by a flag; None if nothing can.
    """
    text = str(error).replace("`liked`", "`--liked`").replace("`partial_fit`", "`nearfar update`")
    text = re.sub(r"unknown='skip' leaves such users out\.$", "", text).rstrip()
    skips = "" if what is None else f" `--unknown skip` leaves such {what} out."
    return UnknownIdError(f"{text}{skips}")


def load_index(path: Path | None, model: CML) -> ItemIndex | None:
    """Load the index of a model, if one is given; see `ItemIndex.load`."""
    return None if path is None else ItemIndex.load(path, model)


def typed_ids(ids: Ids, words: Iterable[str]) -> list[Any]:
    """Convert words from the command line to ids.

    ``@FILE`` stands for the ids in a file, one per line, and ``@@x`` for the id ``@x``.

    Raises
    ------
    DataError
        A file cannot be read or is not UTF-8 text.
    """
    listed: list[str] = []
    for word in words:
        if word.startswith("@@"):
            listed.append(word[1:])
        elif word.startswith("@"):
            listed += words_in(local_path(word[1:], "@FILE"))
        else:
            listed.append(word)
    return ids.typed(listed)


def words_in(file: Path) -> list[str]:
    """Return the lines of a file without space around them, and without those that are empty.

    Raises
    ------
    DataError
        The file cannot be read or is not UTF-8 text.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(file)!r} must be UTF-8 text, one id per line.") from error
    except OSError as error:
        raise DataError(
            f"The file of ids {str(file)!r} cannot be read: {error.strerror}. Check the path; an id"
            " that starts with @ is written with two of them, @@."
        ) from error
    return [line.strip() for line in text.split("\n") if line.strip()]

"""What the commands are given: data, ids as they were typed, and options."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nearfar.cli import show
from nearfar.cli.binding import build
from nearfar.cli.flags import flags_of
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError
from nearfar.method.options import STRATEGIES, Options
from nearfar.method.presets import PRESETS
from nearfar.model.cml import CML
from nearfar.prepare import Rules
from nearfar.runtime.devices import describe, resolve, resolve_ranking
from nearfar.search.item_index import ItemIndex
from nearfar.training.schedule import Schedule


@dataclass(frozen=True)
class Circumstances:
    """How this one run goes; see `nearfar.CML.fit`."""

    validation: float | None = None
    """Share of each user's training interactions to choose the best epoch by; without it the last
    epoch is kept."""
    checkpoint: Path | None = None
    """Folder to save the run in as it goes; if it holds this very run, training goes on from it."""
    seed: int = 0
    """Names every random number."""
    threads: int | None = None
    """Threads to use; every available core if not given. The result does not depend on it."""
    device: str = "cpu"
    """"cpu"; "cuda", "cuda:1" and so on; "auto", a GPU where there is one; "reference": plain loops
    in float64, slow; or "torch:" and any device of PyTorch."""
    fast: bool = False
    """On a GPU: matrix products on tensor cores in TF32 (10 bits of mantissa instead of 23)."""
    progress: bool | None = None
    """Show a progress bar; where the error stream is a terminal if not given."""


OPTION_FLAGS = flags_of(Options, STRATEGIES)
SCHEDULE_FLAGS = flags_of(Schedule)
RUN_FLAGS = flags_of(Circumstances)
RULE_FLAGS = flags_of(Rules)


def circumstances_of(given: Mapping[str, Any]) -> Circumstances:
    """Make the circumstances of a run from the flags that are given."""
    how: Circumstances = build(Circumstances(), RUN_FLAGS, given)
    return replace(how, device=training_device(how.device))


def training_device(asked: str) -> str:
    """Give the device of `asked` that a model is trained on."""
    return _said(asked, resolve(asked))


def ranking_device(asked: str) -> str:
    """Give the device of `asked` that lists are made on."""
    return _said(asked, resolve_ranking(asked))


def _said(asked: str, name: str) -> str:
    """Say which device it is, where that was left to the machine."""
    if asked == "auto":
        show.note(f"nearfar: the device is {describe(name)}.")
    return name


def options_of(preset: str | None, given: Mapping[str, Any]) -> Options:
    """Make the options of a model: the preset's or the defaults, and the given flags over them.

    What the preset itself takes goes to the preset, which may depend on it in more than one place
    (lambda_g of the paper on the number of negatives).
    """
    base = Options()
    if preset is not None:
        make: Any = PRESETS[preset]
        takes = inspect.signature(make).parameters
        base = make(**{key: value for key, value in given.items() if key in takes})
    options: Options = build(base, OPTION_FLAGS, given, STRATEGIES)
    return options


def load_data(path: Path) -> Interactions:
    """Load prepared interactions, or read a plain table of users and items.

    Raises
    ------
    StoreError
        The folder is missing, damaged or something else.
    DataError
        The table cannot be read as it is.
    """
    if not path.is_file():
        return Interactions.load(path)
    try:
        return Interactions.read(path)
    except DataError as error:
        raise DataError(
            f"{error} (`nearfar prepare {path} -o data/` has flags for columns, thresholds and"
            " other forms of the file.)"
        ) from error


def load_index(path: Path | None, model: CML) -> ItemIndex | None:
    """Open the index of a model, if one is given; see `ItemIndex.load`."""
    return None if path is None else ItemIndex.load(path, model)


def typed_ids(ids: Ids, words: Iterable[str]) -> list[Any]:
    """Take words from the command line for ids; a word that names a file is the ids in its lines.

    Raises
    ------
    DataError
        A file is not text.
    """
    listed: list[str] = []
    for word in words:
        if Path(word).is_file():
            try:
                lines = Path(word).read_text("utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{word!r} must be UTF-8 text, one id a line.") from error
            listed += [line.strip() for line in lines if line.strip()]
        else:
            listed.append(word)
    return ids.typed(listed)

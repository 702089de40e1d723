"""Suggestions for an option that does not exist.

Such a name is mostly a field of a part (`margin` is one of `Triplet`), an argument of `fit`, a name
of another library, or a misspelling.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Final

from nearfar.errors import OptionError
from nearfar.method.options import STRATEGIES, Options

ELSEWHERE: Final = {
    "d": "dim", "embedding_dim": "dim", "factors": "dim", "n_factors": "dim",
    "lr": "learning_rate", "eta0": "learning_rate",
}  # fmt: skip
"""Names of options in other libraries and in the paper."""


def unknown_option(name: str, value: Any, options: Options, of_fit: Collection[str]) -> OptionError:
    """Return the error for an option that does not exist, with what was probably meant.

    Parameters
    ----------
    name : str
    value : object
        Its value.
    options : Options
        The current options; parts of the classes they use are suggested first.
    of_fit : collection of str
        The names that `nearfar.CML.fit` takes.

    Examples
    --------
    >>> print(unknown_option("lr", 0.1, Options(), ()))
    unknown option 'lr'; ... Did you mean `optimiser=Adam(learning_rate=0.1)`?
    """
    known = [field.name for field in fields(Options)]
    text = f"unknown option {name!r}; the options are {', '.join(known)}."
    if name in of_fit:
        call = f"CML().fit(train, {name}={value!r})"
        return OptionError(f"{text} `{name}` is an argument of `fit`: {call}.")
    found = _suggested(name, value, known, options)
    if not found:
        return OptionError(text)
    return OptionError(f"{text} Did you mean {' or '.join(f'`{one}`' for one in found)}?")


def _suggested(name: str, value: Any, known: Collection[str], options: Options) -> list[str]:
    """Return what may have been meant, as code."""
    of_parts = {part: _classes_by_field(part, options) for part in STRATEGIES}
    names = {*known, *(field for classes in of_parts.values() for field in classes)}
    meant = ELSEWHERE.get(name.lower(), name.lower())
    if meant not in names:
        close = get_close_matches(meant, sorted(names), n=1)
        if not close:
            return []
        meant = close[0]
    if meant in STRATEGIES:
        return [f"{meant}={_written(value, '...')}"]
    if meant in known:
        return [f"{meant}={value!r}"]
    return [
        f"{part}={classes[meant]}({meant}={value!r})"
        for part, classes in of_parts.items()
        if meant in classes
    ]


def _classes_by_field(part: str, options: Options) -> dict[str, str]:
    """Return, for each field of a part, the name of a class that has it, the current one first."""
    current = type(getattr(options, part))
    classes = sorted(STRATEGIES[part], key=lambda kind: kind is not current)
    found: dict[str, str] = {}
    for kind in filter(is_dataclass, classes):
        for field in fields(kind):
            found.setdefault(field.name, kind.__name__)
    return found


def _written(value: Any, other: str) -> str:
    """Return the code of a part, or `other` for a value that is not a part."""
    return repr(value) if is_dataclass(value) or value is None else other

"""Commands that do what was done in Python: options and files, written as flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from nearfar.cli.binding import build
from nearfar.cli.describing import STRENGTHS
from nearfar.cli.flags import Flag, kebab
from nearfar.cli.inputs import OPTION_FLAGS
from nearfar.errors import OptionError
from nearfar.method.options import STRATEGIES, Options


def words_of(given: Mapping[str, Any]) -> list[str]:
    """Return flags and their values, without those that are None.

    >>> words_of({"item_features": "films.csv", "holdout": 0.25, "fast": True, "metric": None})
    ['--item-features', 'films.csv', '--holdout', '0.25', '--fast']
    """
    words: list[str] = []
    for name, value in given.items():
        flag = kebab(name)
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words


def option_words(options: Options) -> list[str]:
    """Return the flags of `nearfar fit` that make these options out of the defaults.

    Raises
    ------
    OptionError
        No flags make them.

    Examples
    --------
    >>> from nearfar.method.sampling import Popularity
    >>> option_words(Options(dim=64, sampler=Popularity(0.5)))
    ['--dim', '64', '--sampler', 'popularity', '--beta', '0.5']
    """
    given = {
        flag.key: value for flag in OPTION_FLAGS if (value := _value(flag, options)) is not None
    }
    plain = {name: getattr(Options(), name) for name in ("items", "users")}
    made = build(Options(), OPTION_FLAGS, given, STRATEGIES)
    wanted = {one.name: getattr(options, one.name) for one in fields(options)} | plain
    if made != Options(**wanted):
        raise OptionError(f"no flags of `nearfar fit` make the options {options!r}; use Python.")
    return words_of(given) + words_of(_strengths(options))


def _value(flag: Flag, options: Options) -> Any:
    """Return the value that a flag must have, or None if it can be left out."""
    default = Options()
    if not flag.part:
        value = getattr(options, flag.field)
        return None if value == getattr(default, flag.field) else value
    before, now = getattr(default, flag.part), getattr(options, flag.part)
    changed = type(before) is not type(now)
    if not flag.field:
        return kebab(type(now).__name__) if changed else None
    if now is None:  # the flag of the part itself switches it off
        return 0 if changed and flag.name == kebab(flag.part) else None
    if not is_dataclass(now) or not isinstance(now, flag.owners):
        return None
    value = getattr(now, flag.field)
    start: Any = _unchanged(type(now)) if changed else before
    switches_on = before is None and flag.name == kebab(flag.part)
    return None if value == getattr(start, flag.field) and not switches_on else value


def _unchanged(kind: Any) -> Any:
    """Return an object of a class of options with its defaults."""
    return kind()


def _strengths(options: Options) -> dict[str, Any]:
    """Return the flags of a hybrid."""
    hybrid = options.items or options.users
    if hybrid is None:
        return {}
    values = (hybrid.id_dropout, hybrid.id_decay, getattr(hybrid.encoder, "decay", None))
    return dict(zip(STRENGTHS, values, strict=True))

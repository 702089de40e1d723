"""Options by name, with those of their parts as ``part__field``, as scikit-learn names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from nearfar.errors import OptionError
from nearfar.method.options import Options
from nearfar.runtime.checks import said, switch

_BETWEEN = "__"


def parameters_of(options: Options, deep: bool) -> dict[str, Any]:
    """Return the options by name, and with `deep` also the fields of their parts.

    Raises
    ------
    OptionError
        `deep` is neither True nor False.

    Examples
    --------
    >>> found = parameters_of(Options(dim=8), deep=True)
    >>> found["dim"], found["triplet__margin"], found["optimiser__learning_rate"]
    (8, 0.2, 0.005)
    """
    found: dict[str, Any] = {}
    with_fields = switch("deep", deep)
    for field in fields(options):
        value = getattr(options, field.name)
        found[field.name] = value
        if with_fields and is_dataclass(value):
            nested = {one.name: getattr(value, one.name) for one in fields(value)}
            found |= {f"{field.name}{_BETWEEN}{name}": one for name, one in nested.items()}
    return found


def with_parameters(options: Options, given: Mapping[str, Any]) -> Options:
    """Return options with some replaced, whole parts before their fields.

    Raises
    ------
    OptionError
        A name is not an option, or a value is out of its range.

    Examples
    --------
    >>> with_parameters(Options(), {"sampler__beta": 0.5, "dim": 8}).sampler
    Shared(beta=0.5)
    """
    whole = {name: value for name, value in given.items() if _BETWEEN not in name}
    _check(whole, options, "")
    options = replace(options, **whole)
    parts: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        part, between, field = name.partition(_BETWEEN)
        if between:
            parts.setdefault(part, {})[field] = value
    for part, values in parts.items():
        _check({part: None}, options, "")
        current = getattr(options, part)
        if not is_dataclass(current) or isinstance(current, type):
            one = next(iter(values))
            raise OptionError(f"`{part}` is {said(current)}, so it has no field {one!r}.")
        _check(values, current, f"{part}{_BETWEEN}")
        changed: dict[str, Any] = {part: replace(current, **values)}
        options = replace(options, **changed)
    return options


def _check(given: Mapping[str, Any], owner: Any, within: str) -> None:
    known = [field.name for field in fields(owner) if field.init]
    for name in given:
        if name not in known:
            names = ", ".join(f"{within}{one}" for one in known)
            raise OptionError(f"unknown parameter '{within}{name}'; there are {names}.")

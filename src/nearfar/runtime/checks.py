"""The door: numbers, switches and paths that a caller passes are checked and converted here.

A function of the public interface calls one of these for each such argument, before any work, and
continues with the result: an int, a float, a bool, a Path. Whatever stands for a number is one:
numpy's scalars, `fractions.Fraction`, `decimal.Decimal`. Text is not a number, and True is not 1.
Everything else raises `OptionError`, which names the argument, its value and its type.
"""

from __future__ import annotations

import math
import os
import re
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

import numpy as np

from nearfar.errors import OptionError

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a remote path, such as ``s3://bucket``; one letter would be a Windows drive."""


def whole(name: str, value: Any, least: int | None = 1, most: int | None = None) -> int:
    """Return a whole number as int.

    Parameters
    ----------
    name : str
        The argument, without backquotes.
    value : object
    least, most : int or None
        The bounds, both allowed values.

    Raises
    ------
    OptionError
        It is not a whole number, or out of bounds. 3.0 is not one.
    """
    value = _scalar(value)
    number = isinstance(value, Integral) and not isinstance(value, bool)
    if number and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    raise OptionError(f"`{name}` must be a whole number{_range(least, most)}; got {said(value)}.")


def real(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    remedy: str = "",
) -> float:
    """Return a finite number as float.

    Parameters
    ----------
    name : str
        The argument, without backquotes.
    value : object
    least, most : float or None
        The bounds, both allowed values.
    above, below : float or None
        The bounds, neither of them an allowed value.
    remedy : str
        The end of the message.

    Raises
    ------
    OptionError
        It is not a number, not finite, or out of bounds.
    """
    value = _scalar(value)
    if isinstance(value, (Real, Decimal)) and not isinstance(value, bool):
        number = float(value)
        inside = (
            (least is None or number >= least)
            and (most is None or number <= most)
            and (above is None or number > above)
            and (below is None or number < below)
        )
        if math.isfinite(number) and inside:
            return number
    bounds = [(f"at least {least}", least), (f"above {above}", above),
              (f"at most {most}", most), (f"below {below}", below)]  # fmt: skip
    where = " and ".join(text for text, bound in bounds if bound is not None)
    end = f" {remedy}" if remedy else ""
    raise OptionError(
        f"`{name}` must be a finite number{f' {where}' if where else ''}; got {said(value)}.{end}"
    )


def switch(name: str, value: Any) -> bool:
    """Return True or False as bool; numpy's count as well.

    Raises
    ------
    OptionError
        It is anything else, such as the text "no" or the number 1.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise OptionError(f"`{name}` must be True or False; got {said(value)}.")


def checked_seed(value: Any, name: str = "seed") -> int:
    """Return a seed: a whole number from 0 to 2^64 - 1.

    Raises
    ------
    OptionError
        It is anything else. None is refused as well: the same call must give the same result.
    """
    value = _scalar(value)
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value < 2**64:
        return int(value)
    raise OptionError(
        f"`{name}` must be a whole number from 0 to 2^64 - 1; got {said(value)}. For a random one"
        f" write {name}=secrets.randbits(32)."
    )


def one_of(name: str, value: Any, allowed: Any) -> Any:
    """Return a value that is one of those allowed.

    Raises
    ------
    OptionError
        It is not; the message lists them.
    """
    if isinstance(value, str) and value in allowed:
        return str(value)
    raise OptionError(f"`{name}` must be one of {', '.join(allowed)}; got {said(value)}.")


def local_path(value: Any, name: str = "path") -> Path:
    """Return a path on this machine; a leading ``~`` becomes the home folder.

    Raises
    ------
    OptionError
        It is not text or a path, is empty, or is an address, such as ``s3://bucket/model``.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        raise OptionError(f"`{name}` must be a path; got {said(value)}.") from None
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text or "\0" in text:
        raise OptionError(f"`{name}` must be a path; got {said(value)}.")
    if _SCHEME.match(text):
        raise OptionError(
            f"`{name}` must be a path on this machine; got the address {text!r}. Write to a local"
            " folder and copy it from there, or mount the remote one."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise OptionError(f"`{name}` is {text!r}: {error} Write the whole path.") from error


def said(value: Any) -> str:
    """Return a value for a message, with its type unless that is obvious; cut if it is long."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= 80 else f"{text[:80]}..."
    obvious = value is None or type(value) in (int, float, bool)
    return text if obvious else f"{text} of type {type(value).__name__}"


def _scalar(value: Any) -> Any:
    """Return the only value of a numpy array without dimensions, and anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _range(least: int | None, most: int | None) -> str:
    if most is None:
        return "" if least is None else f" of at least {least:,}"
    return f" of at most {most:,}" if least is None else f" from {least:,} to {most:,}"


def check_count(name: str, value: object) -> None:
    """Raise unless `value` is a whole number of at least 1."""
    whole(name, value)


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Raise unless `value` is finite and above 0; `name` includes its own backquotes."""
    if not (np.isfinite(value) and value > 0):
        raise OptionError(f"{name} must be a positive number; got {value!r}.{remedy}")

"""Arguments: what a caller passes to the public interface is checked and converted here.

A public function calls one of these for each argument, before any work, and continues with the
result: an int, a float, a bool, a Path, a list. Whatever stands for a number is one: numpy's
scalars, `fractions.Fraction`, `decimal.Decimal`. Text is not a number, and True is not 1.
Everything else raises an error that names the argument, its value and its type: `OptionError`, or
`DataError` for data. A frozen dataclass of options checks its fields with `set_fields`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, OptionError

_LONGEST: Final = 80
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a remote path, such as ``s3://bucket``; one letter would be a Windows drive."""


def whole(
    name: str, value: Any, least: int | None = 1, most: int | None = None, *, remedy: str = ""
) -> int:
    """Return a whole number as int.

    Parameters
    ----------
    name : str
        The argument, without backquotes.
    value : object
    least, most : int or None
        The bounds, both allowed values.
    remedy : str
        The end of the message.

    Raises
    ------
    OptionError
        It is not a whole number, or out of bounds. 3.0 is not one.
    """
    value = _scalar(value)
    if is_integer(value) and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    raise OptionError(
        f"`{name}` must be a whole number{_range(least, most)}; got {said(value)}.{_end(remedy)}"
    )


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
    number = _float(value)
    inside = (
        (least is None or number >= least)
        and (most is None or number <= most)
        and (above is None or number > above)
        and (below is None or number < below)
    )
    if math.isfinite(number) and inside:
        return number
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    where = " and ".join(f"{words} {one:g}" for words, one in bounds.items() if one is not None)
    what = "a positive number" if where == "above 0" else f"a finite number {where}".strip()
    raise OptionError(f"`{name}` must be {what}; got {said(value)}.{_end(remedy)}")


def share(name: str, value: Any, remedy: str = "") -> float:
    """Return a number between 0 and 1, neither included, as float.

    Raises
    ------
    OptionError
        It is anything else; the message ends with `remedy`.
    """
    number = _float(value)
    if 0.0 < number < 1.0:
        return number
    raise OptionError(
        f"`{name}` must lie between 0 and 1, neither included; got {said(value)}.{_end(remedy)}"
    )


def switch(name: str, value: Any) -> bool:
    """Return True or False as bool; numpy's count as well.

    Raises
    ------
    OptionError
        It is anything else, such as the text "no" or the number 1.
    """
    value = _scalar(value)
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
    if is_integer(value) and 0 <= int(value) < 2**64:
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
    shown = repr(str(value)) if isinstance(value, str) else said(value)
    raise OptionError(f"`{name}` must be one of {', '.join(allowed)}; got {shown}.")


def plain_text(name: str, value: Any) -> str:
    """Return a text as str.

    Raises
    ------
    OptionError
        It is not text, or it is empty.
    """
    if isinstance(value, str) and value:
        return str(value)
    raise OptionError(f"`{name}` must be a text that is not empty; got {said(value)}.")


def an_instance(name: str, value: Any, kind: type[Any], remedy: str = "") -> Any:
    """Return an object that is of a class.

    Raises
    ------
    OptionError
        It is not; the message ends with `remedy`.
    """
    if isinstance(value, kind):
        return value
    made = " (the class itself: add parentheses)" if value is kind else ""
    raise OptionError(
        f"`{name}` must be of type {kind.__name__}; got {said(value)}{made}.{_end(remedy)}"
    )


def a_callable(name: str, value: Any) -> Callable[..., Any]:
    """Return a function or another object that can be called.

    Raises
    ------
    OptionError
        It cannot be called.
    """
    if callable(value):
        return value  # type: ignore[no-any-return]
    raise OptionError(f"`{name}` must be callable; got {said(value)}.")


def listed(name: str, value: Any, of: str = "values", remedy: str = "") -> list[Any]:
    """Return the elements of a list, tuple, set, array, Series or another iterable.

    Raises
    ------
    DataError
        It is a single value, such as text, or a mapping or a table, whose elements would be its
        names. The message ends with `remedy`.
    """
    single = isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
    named = isinstance(value, Mapping) or hasattr(value, "columns")
    if single or named or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise DataError(
            f"`{name}` must be a list of {of}; got {'' if named else 'the single '}{said(value)}."
            f"{_end(remedy)}"
        )
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def an_array(name: str, value: Any, ndim: int, kinds: str = "iuf") -> npt.NDArray[Any]:
    """Return an array of numbers.

    Parameters
    ----------
    name : str
    value : array_like
    ndim : int
        The number of dimensions, 1 or 2.
    kinds : str
        The kinds of numpy's types that are allowed, such as "iu" for whole numbers.

    Raises
    ------
    DataError
        It is not an array, or has other dimensions or other values.
    """
    found = as_array(value)
    if found.ndim == ndim and (found.dtype.kind in kinds or not found.size):
        return found
    shape = "a flat array" if ndim == 1 else "a table of rows"
    numbers = "numbers" if "f" in kinds else "whole numbers"
    raise DataError(f"`{name}` must be {shape} of {numbers}; got {said(value)}.")


def as_array(value: Any) -> npt.NDArray[Any]:
    """Return a value as an array; one of objects without dimensions if that is impossible."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # lists of different lengths, tensors on a GPU
        return np.empty((), object)


def set_fields(owner: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass, in its ``__post_init__``, to their checked values."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


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


def local_folder(name: str, value: Any) -> Path:
    """Return the path of an existing folder on this machine.

    Raises
    ------
    OptionError
        It is not a path, or there is no such folder.
    """
    folder = local_path(value, name)
    if not folder.is_dir():
        raise OptionError(f"`{name}` must be an existing folder; got {str(folder)!r}.")
    return folder


def said(value: Any) -> str:
    """Return a value for a message, with its type unless that is obvious; cut if it is long."""
    kind = type(value).__name__
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape:
        return f"{kind} of shape {shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # such as an int of more digits than Python writes
        return f"a value of type {kind}"
    obvious = value is None or type(value) in (int, float, bool)
    return cut(text) if obvious else f"{cut(text)} of type {kind}"


def cut(text: str) -> str:
    """Return a text for a message, cut to at most 80 characters."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _end(remedy: str) -> str:
    return f" {remedy}" if remedy else ""


def _scalar(value: Any) -> Any:
    """Return the only value of a numpy array without dimensions, and anything else as it is."""
    return value.item() if type(value) is np.ndarray and value.ndim == 0 else value


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer of Python or numpy, and not True or False."""
    return _is_number(value, Integral)


def _is_number(value: Any, kind: type[Any]) -> bool:
    """Return whether a value is of a kind of numbers; numpy counts durations as integers."""
    return isinstance(value, kind) and not isinstance(value, (bool, np.timedelta64))


def _float(value: Any) -> float:
    """Return a number as float; NaN if it is not a number, or has too many digits for a float."""
    value = _scalar(value)
    if not _is_number(value, Real) and not isinstance(value, Decimal):
        return math.nan
    try:
        return float(value)
    except (OverflowError, ValueError):  # ValueError: a signalling NaN
        return math.nan


def _range(least: int | None, most: int | None) -> str:
    if most is None:
        return "" if least is None else f" of at least {least:,}"
    return f" of at most {most:,}" if least is None else f" from {least:,} to {most:,}"

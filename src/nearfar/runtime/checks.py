"""Checks of options that several parts share; each raises `OptionError`."""

from __future__ import annotations

import numpy as np

from nearfar.errors import OptionError


def check_count(name: str, value: object) -> None:
    """Raise unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise OptionError(f"`{name}` must be a whole number of at least 1; got {value!r}.")


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Raise unless `value` is finite and above 0; `name` includes its own backquotes."""
    if not (np.isfinite(value) and value > 0):
        raise OptionError(f"{name} must be a positive number; got {value!r}.{remedy}")

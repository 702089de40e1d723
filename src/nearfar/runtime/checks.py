"""Checks of options that several parts share; each raises `OptionError`."""

from __future__ import annotations

import numpy as np

from nearfar.errors import OptionError


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise OptionError(f"`{name}` must be a whole number of at least 1; got {value!r}.")


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Refuse what is not a finite number above 0; `name` comes with its marks."""
    if not (np.isfinite(value) and value > 0):
        raise OptionError(f"{name} must be a positive number; got {value!r}.{remedy}")

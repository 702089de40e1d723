"""Warnings that point at the line that called the package, however deep they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from nearfar.errors import NearfarWarning

_INTERNAL = frozenset({__name__.partition(".")[0], "contextlib", "functools", "importlib"})
"""Modules whose frames are skipped: this package, and the modules through which it calls itself."""


def warn(message: str) -> None:
    """Issue a `NearfarWarning` that points at the line outside the package that called it.

    ``warnings.warn`` requires the number of frames to that line, which differs between public
    functions and changes whenever a function is moved.
    """
    frame = sys._getframe(1)
    while _is_internal(frame) and frame.f_back is not None:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        NearfarWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "sys"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_internal(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _INTERNAL

"""Warnings that point at the line of whoever called the package, however deep they arise."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from nearfar.errors import NearfarWarning

_ON_THE_WAY = frozenset({__name__.partition(".")[0], "contextlib", "functools", "importlib"})
"""Modules between the caller and a warning: this package, and what it calls itself through."""


def warn(message: str) -> None:
    """Give a `NearfarWarning` at the line outside the package that led here.

    ``warnings.warn`` wants the number of frames to that line, which differs from one public
    function to another and changes with every function that is moved.
    """
    frame = sys._getframe(1)
    while _is_on_the_way(frame) and frame.f_back is not None:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        NearfarWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "sys"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_on_the_way(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _ON_THE_WAY

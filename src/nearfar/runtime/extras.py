"""Packages that are not installed with nearfar, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nearfar.errors import MissingExtraError


def load_extra(module: str, missing: str) -> Any:
    """Import a module of an extra.

    Parameters
    ----------
    module : str
    missing : str
        What to say if it is not there: what needs it, and how to install it.

    Raises
    ------
    MissingExtraError
        It is not installed. One that is, and lacks something itself, raises what it raises.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(missing) from error

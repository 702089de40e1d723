"""Import of optional packages, which are not installed with nearfar by default."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nearfar.errors import MissingExtraError


def load_extra(module: str, missing: str) -> Any:
    """Import a module that belongs to an extra.

    Parameters
    ----------
    module : str
    missing : str
        The error message if it is not installed: what needs it, and how to install it.

    Raises
    ------
    MissingExtraError
        The module is not installed. If it is installed but one of its own imports fails, that
        import's error is raised unchanged.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(missing) from error

"""The version of nearfar, defined only here."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"

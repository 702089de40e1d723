"""Figures of matplotlib in the style of the package; the extra ``nearfar[plot]``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nearfar.runtime.extras import load_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Final[dict[Any, Any]] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8.0,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "nearfar",
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Import matplotlib.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    load_extra(
        "matplotlib", "Plots need matplotlib, which is not installed: `pip install nearfar[plot]`."
    )


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure, in inches; draw and save it inside, in the style of the package.

    The user's configuration of matplotlib is neither used nor changed.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width, height), layout="constrained")

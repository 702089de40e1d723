"""The parts of a step, in plain torch or in Triton.

Both compute the same integers, and floats within rounding; tests compare them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from nearfar.engine.gpu import device_plan, eager, points
from nearfar.engine.spec import DrawSpec
from nearfar.runtime.caller import warn

Part = Callable[..., Any]
_WIDEST = 8192
"""Negatives of a pair that a kernel still holds in registers."""
_OLDEST_TRITON = (3, 4)
"""The first Triton whose kernels read the fields of a constant record; PyTorch 2.8 brings it."""


class Parts(NamedTuple):
    """Functions of one signature; see `device_plan` and `eager`."""

    draw_pairs: Part
    draw_items: Part
    draw_negatives: Part
    find_mine: Part
    order_rows: Part
    gather: Part
    compare: Part
    weigh: Part
    multiply: Part
    spread_slopes: Part
    spread: Part
    choose: Part
    update: Part
    captured: bool
    """Whether a run of steps made of them can be captured in a CUDA graph."""


EAGER = Parts(
    device_plan.draw_pairs,
    device_plan.draw_items,
    device_plan.draw_negatives,
    device_plan.find_mine,
    device_plan.order_rows,
    points.gather,
    eager.compare,
    eager.weigh,
    eager.multiply,
    eager.spread_slopes,
    eager.spread,
    eager.choose,
    eager.update,
    captured=False,
)


def parts_for(device: torch.device, draws: DrawSpec) -> Parts:
    """Return Triton's parts on a GPU where Triton is usable and no pair has too many negatives."""
    widest = max(draws.negatives, draws.candidates)
    if device.type != "cuda" or widest > _WIDEST or not has_triton():
        return EAGER
    return kernel_parts()


def has_triton() -> bool:
    """Return whether Triton is installed and recent enough; warn if it is too old."""
    if find_spec("triton") is None:
        return False
    version = str(import_module("triton").__version__)
    if tuple(map(int, re.findall(r"\d+", version)[:2])) >= _OLDEST_TRITON:
        return True
    oldest = ".".join(map(str, _OLDEST_TRITON))
    warn(
        f"Triton {version} is too old for the kernels of the GPU engine, which need {oldest} or"
        " later; steps run in plain PyTorch instead, which is slower. Triton comes with PyTorch:"
        ' `pip install --upgrade "torch>=2.8"`.'
    )
    return False


def kernel_parts() -> Parts:
    """Return the parts in Triton, which is imported for it."""
    from nearfar.engine.gpu import launch

    return Parts(
        launch.draw_pairs,
        launch.draw_items,
        launch.draw_negatives,
        launch.find_mine,
        launch.order_rows,
        launch.gather,
        launch.compare,
        launch.weigh,
        launch.multiply,
        launch.spread_slopes,
        launch.spread,
        launch.choose,
        launch.update,
        captured=True,
    )

"""The parts that a step is put together from, in plain torch or in Triton.

Both give the same integers, and floats within rounding; tests hold them against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from nearfar.engine.gpu import device_plan, eager, points
from nearfar.engine.gpu.device_plan import DeviceDraws

Part = Callable[..., Any]
_WIDEST = 8192
"""Negatives of a pair that a kernel still holds in registers."""


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


def parts_for(device: torch.device, draws: DeviceDraws) -> Parts:
    """Give Triton's parts on a GPU where there is Triton and no pair has too many negatives."""
    widest = max(draws.negatives, draws.candidates)
    if device.type != "cuda" or find_spec("triton") is None or widest > _WIDEST:
        return EAGER
    return kernel_parts()


def kernel_parts() -> Parts:
    """Give the parts in Triton, which is imported for it."""
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

"""The memory that a run needs on the device, computed before anything is allocated there."""

from __future__ import annotations

import torch

from nearfar.engine.gpu.device_plan import bytes_a_step
from nearfar.engine.problem import Problem
from nearfar.engine.spec import DrawSpec
from nearfar.errors import OptionError
from nearfar.runtime.devices import free_bytes

_MOST_STEPS, _MOST_STEPS_ON_HOST = 256, 32
_PLANS = 2**29
"""Bytes that plans may take."""


def table_bytes(problem: Problem) -> int:
    """Return the bytes of a run's tables: parameter, moments, last steps, and the mean, if any."""
    options = problem.options
    tables = options.optimiser.n_slots + (options.averaging is not None)
    return problem.n_table_rows * (4 * options.dim * tables + 8)


def step_bytes(problem: Problem, draws: DrawSpec) -> int:
    """Return the bytes of the numbers of one step."""
    d, b, c = problem.options.dim, draws.batch, draws.candidates
    return 4 * d * (3 * draws.places + 4 * b + 2 * c) + 16 * b * c


def check_room(problem: Problem, draws: DrawSpec, device: torch.device) -> None:
    """Raise `OptionError` if the tables of a run do not fit, with the numbers."""
    free = free_bytes(device)
    pairs = problem.interactions.n_pairs
    needed = table_bytes(problem) + step_bytes(problem, draws) + bytes_a_step(draws) + 8 * pairs
    if free is not None and needed > free:
        options = problem.options
        raise OptionError(
            f"{problem.n_rows:,} rows with `dim`={options.dim} and"
            f" {type(options.optimiser).__name__} need {needed / 2**30:.2f} GiB, and {device} has"
            f" {free / 2**30:.2f} GiB free; use device='cpu', a smaller `dim`, or SGD, which keeps"
            f" no moments."
        )


def steps_at_once(draws: DrawSpec, device: torch.device) -> int:
    """Return how many steps are planned together: as many as keep the device busy, and fit."""
    most = _MOST_STEPS_ON_HOST if device.type == "cpu" else _MOST_STEPS
    free = free_bytes(device)
    room = _PLANS if free is None else min(_PLANS, free // 4)
    return int(max(1, min(most, room // bytes_a_step(draws))))

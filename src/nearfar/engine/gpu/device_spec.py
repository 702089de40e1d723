"""Parameters of the optimiser on a torch device, in addition to `Spec`: Adam's tables and rates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.engine.problem import Problem
from nearfar.engine.spec import Spec
from nearfar.method.optimiser import adam_drift_tables


class DeviceDecay(NamedTuple):
    """The effect of Adam's steps on a row that they do not touch; on the device."""

    drift: Tensor
    """(2, T) float64 `nearfar.method.optimiser.adam_drift_tables`."""
    numbers: Tensor
    """(8,) float64: learning rate, epsilon, log2 of rho_1, rho_2, beta_1 and beta_2, and the two
    betas themselves."""


RATE, EPSILON, RHO_1, RHO_2, BETA_1, BETA_2 = range(6)


def make_decay(problem: Problem, device: torch.device) -> DeviceDecay:
    """Return Adam's tables on the device."""
    adam = problem.options.optimiser
    numbers = torch.zeros(8, dtype=torch.float64)
    numbers[RATE] = adam.learning_rate
    if adam.kernel != "adam":
        return DeviceDecay(torch.zeros((2, 1), dtype=torch.float64).to(device), numbers.to(device))
    b1, b2 = adam.beta1, adam.beta2
    powers = torch.tensor([b1 / b2**0.5, b1 / b2, b1, b2], dtype=torch.float64)
    numbers[EPSILON], numbers[RHO_1 : BETA_2 + 1] = adam.epsilon, torch.log2(powers)
    numbers[6], numbers[7] = b1, b2
    drift = torch.from_numpy(adam_drift_tables(adam, problem.horizon))
    return DeviceDecay(drift.to(device), numbers.to(device))


def pace(step: Tensor, rules: Spec) -> Tensor:
    """Return the learning rate and epsilon of steps, with Adam's bias corrections: (S, 4).

    The result is float32; the last two columns are padding for alignment.
    """
    out = torch.zeros((len(step), 4), dtype=torch.float64, device=step.device)
    out[:, RATE], out[:, EPSILON] = rules.learning_rate, rules.epsilon
    if rules.adam:
        now = (step + 1).to(torch.float64)
        unbiased = torch.sqrt(1.0 - rules.beta2**now)
        out[:, RATE] *= unbiased / (1.0 - rules.beta1**now)
        out[:, EPSILON] *= unbiased
    return out.to(torch.float32)

"""The options in numbers, as the parts of a step on a torch device take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.engine.problem import Problem
from nearfar.engine.spec import BALL, SPHERE, USE_ADAGRAD, USE_ADAM, make_spec
from nearfar.method.geometry import released_overflow_gap
from nearfar.method.optimiser import Adam, adam_drift_tables
from nearfar.method.sampling import TwoStage


class StepRules(NamedTuple):
    """What a step computes: plain values, fixed for a run."""

    dim: int
    sphere: bool
    ball: bool
    adam: bool
    adagrad: bool
    drifts: bool
    """Whether rows that a step does not touch still move."""
    margin: float
    temperature: float
    rank_weight: bool
    n_items: int
    spread_out: float
    decorrelate: float
    decorrelate_squared: bool
    overflow_gap: float
    """Negative except for the released script's weight."""
    learning_rate: float
    epsilon: float
    beta1: float
    beta2: float

    @property
    def slots(self) -> int:
        """The parameter and the optimiser's moments."""
        return 3 if self.adam else 2 if self.adagrad else 1


class DeviceDecay(NamedTuple):
    """What steps of Adam do to a row that they do not touch; on the device."""

    drift: Tensor
    """(2, T) float64 `nearfar.method.optimiser.adam_drift_tables`."""
    numbers: Tensor
    """(8,) float64: learning rate, epsilon, log2 of rho_1, rho_2, beta_1 and beta_2, and the two
    betas themselves."""


RATE, EPSILON, RHO_1, RHO_2, BETA_1, BETA_2 = range(6)


def make_rules(problem: Problem) -> StepRules:
    """Put the options into numbers."""
    spec, options = make_spec(problem), problem.options
    sampler = options.sampler
    released = isinstance(sampler, TwoStage) and sampler.released_weight
    return StepRules(
        dim=options.dim,
        sphere=spec.geometry == SPHERE,
        ball=spec.geometry == BALL,
        adam=spec.optimiser == USE_ADAM,
        adagrad=spec.optimiser == USE_ADAGRAD,
        drifts=spec.optimiser == USE_ADAM and spec.beta1 > 0.0,
        margin=spec.margin,
        temperature=spec.temperature,
        rank_weight=spec.rank_weight,
        n_items=spec.n_items,
        spread_out=spec.spread_out,
        decorrelate=spec.decorrelate,
        decorrelate_squared=spec.decorrelate_squared,
        overflow_gap=released_overflow_gap(options.dim) if released else -1.0,
        learning_rate=spec.learning_rate,
        epsilon=spec.epsilon,
        beta1=spec.beta1,
        beta2=spec.beta2,
    )


def make_decay(problem: Problem, device: torch.device) -> DeviceDecay:
    """Put Adam's tables on the device."""
    adam = problem.options.optimiser
    numbers = torch.zeros(8, dtype=torch.float64)
    numbers[RATE] = adam.learning_rate
    if not isinstance(adam, Adam):
        return DeviceDecay(torch.zeros((2, 1), dtype=torch.float64).to(device), numbers.to(device))
    b1, b2 = adam.beta1, adam.beta2
    powers = torch.tensor([b1 / b2**0.5, b1 / b2, b1, b2], dtype=torch.float64)
    numbers[EPSILON], numbers[RHO_1 : BETA_2 + 1] = adam.epsilon, torch.log2(powers)
    numbers[6], numbers[7] = b1, b2
    drift = torch.from_numpy(adam_drift_tables(adam, problem.horizon))
    return DeviceDecay(drift.to(device), numbers.to(device))


def pace(step: Tensor, rules: StepRules) -> Tensor:
    """Learning rate and epsilon of steps 0, 1, ..., Adam's bias corrections included: (S, 4).

    float32; the last two columns are there for alignment.
    """
    out = torch.zeros((len(step), 4), dtype=torch.float64, device=step.device)
    out[:, RATE], out[:, EPSILON] = rules.learning_rate, rules.epsilon
    if rules.adam:
        now = (step + 1).to(torch.float64)
        unbiased = torch.sqrt(1.0 - rules.beta2**now)
        out[:, RATE] *= unbiased / (1.0 - rules.beta1**now)
        out[:, EPSILON] *= unbiased
    return out.to(torch.float32)

"""The records that the parts of a step take, in torch and in Triton alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Tables(NamedTuple):
    """The tables of a run on the device, and what Adam does to rows that a step does not touch."""

    rows: Tensor
    """(N + M, slots, d) float32; see `nearfar.engine.problem.State`."""
    last: Tensor
    """(N + M,) int64."""
    drift: Tensor
    """(2, T) float64, see `nearfar.engine.gpu.device_spec.DeviceDecay`."""
    numbers: Tensor
    """(8,) float64, see there."""
    n_drift: int
    """T."""


class BatchPoints(NamedTuple):
    """Rows of a step as they are now."""

    point: Tensor
    """(E, d); 0 for an empty place."""
    length: Tensor
    """(E,) of the stored row on the sphere, else 1."""
    offset: Tensor
    """(E,) what is taken off a product to make it a score; see `nearfar.engine.cpu.compute`."""


class StepNow(NamedTuple):
    """One step of a plan; see `nearfar.engine.gpu.device_plan.StepPlans`."""

    step: Tensor
    """(2,) int64."""
    pace: Tensor
    """(4,) float32, see `nearfar.engine.gpu.device_spec.pace`."""
    entries: Tensor
    """(B, W) int64."""
    row: Tensor
    """(E,) int32."""
    entry: Tensor
    """(E,) int32."""
    candidates: Tensor
    """(C,) int64."""
    mine: Tensor
    """(B, C) bool."""
    missed: Tensor
    """(B,) int64."""


class Flow(NamedTuple):
    """What flows into the entries of a step; see `nearfar.engine.gpu.eager`."""

    weight: Tensor
    """(E,) own_e is -weight_e for items of pairs, and 0 for users."""
    side: Tensor
    """(2 B + C, d), or (4 B, d) with a spread-out term: its gradients of the positives, and the
    positives."""
    products: Tensor
    """(B, C) of users, or of what stage 2 compares, with candidates; then shares of the loss."""
    share: Tensor
    """(C,) the sum of the shares of each shared negative: -own_e."""
    slope: Tensor
    """(B, N) derivative of the spread-out term by v_j.v_k; products before that."""
    moments: Tensor
    """(B, 3) sums over the pair's negatives of 1, s and s^2, float64."""
    totals: Tensor
    """(3,) float64: spread-out slope of the mean, slope of s, loss."""
    extra: Tensor
    """(E, d) gradient of the covariance loss, in the order of `StepPlans.row`, or (0, d)."""


class Log(NamedTuple):
    """What a step writes down of its pairs."""

    loss: Tensor
    """(B,) float64."""
    violated: Tensor
    """(B,) bool."""

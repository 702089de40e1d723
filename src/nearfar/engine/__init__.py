"""How a training step is computed.

`problem` says what every engine is given: the data, the options, the seed and the tables they
start from. `reference` is the specification: plain loops in float64. `cpu` computes the same with
compiled kernels on any number of threads, and is tested against `reference`.
"""

from __future__ import annotations

from nearfar.engine.problem import Engine, Problem, State, StepLog
from nearfar.errors import OptionError

__all__ = ["DEVICES", "Engine", "Problem", "State", "StepLog", "make_engine"]

DEVICES = ("cpu", "reference")
"""What `device=` may be."""


def make_engine(problem: Problem, state: State | None, *, device: str, threads: int) -> Engine:
    """Make the engine that `device` names.

    Parameters
    ----------
    problem : Problem
    state : State or None
        The tables to go on from; None starts from ``problem.initial_state()``.
    device : str
        "cpu", or "reference" for the plain loops in float64 (slow; for checking).
    threads : int
        Threads of the CPU engine.
    """
    if device == "cpu":
        from nearfar.engine.cpu import CPUEngine

        return CPUEngine(problem, state, threads=threads)
    if device == "reference":
        from nearfar.engine.reference import ReferenceEngine

        return ReferenceEngine(problem, state)
    raise OptionError(f"`device` must be one of {', '.join(DEVICES)}; got {device!r}.")

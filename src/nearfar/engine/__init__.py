"""How a training step is computed.

`problem` says what every engine is given: the data, the options, the seed and the tables they
start from. `reference` is the specification: plain loops in float64. `cpu` computes the same with
compiled kernels on any number of threads, `gpu` on any torch device; both are tested against
`reference`.
"""

from __future__ import annotations

from nearfar.engine.problem import Engine, OnDevice, Problem, State, StepLog
from nearfar.errors import OptionError
from nearfar.runtime.devices import resolve, torch_device

__all__ = ["Engine", "OnDevice", "Problem", "State", "StepLog", "make_engine"]


def make_engine(
    problem: Problem, state: State | None, *, device: str, threads: int, fast: bool = False
) -> Engine:
    """Make the engine that `device` names.

    Parameters
    ----------
    problem : Problem
    state : State or None
        The tables to go on from; None starts from ``problem.initial_state()``.
    device : str
        As `nearfar.runtime.devices` lists them.
    threads : int
        Threads of the CPU engine.
    fast : bool
        Round the factors of matrix products to TF32; only on a GPU.

    Raises
    ------
    OptionError
        `device` is unknown or not there, its memory does not suffice, or `fast` is asked of it
        without being for it.
    MissingExtraError
        `device` needs PyTorch.
    """
    name = resolve(device)
    if fast and not name.startswith("cuda"):
        raise OptionError(
            f"`fast` rounds matrix products on the tensor cores of a GPU, and `device` is {name!r};"
            f" leave it out."
        )
    if name == "cpu":
        from nearfar.engine.cpu.cpu_engine import CPUEngine

        return CPUEngine(problem, state, threads=threads)
    if name == "reference":
        from nearfar.engine.reference import ReferenceEngine

        return ReferenceEngine(problem, state)
    from nearfar.engine.gpu.gpu_engine import GPUEngine

    return GPUEngine(problem, state, device=torch_device(name) or name, fast=fast)

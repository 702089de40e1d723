"""Engines, which compute training steps.

`problem` defines the input of every engine: the data, the options, the seed and the initial tables.
`reference` is the specification: plain loops in float64. `cpu` computes the same with compiled
kernels on any number of threads, `gpu` on any torch device, `cluster` in several processes; all are
tested against `reference`.
"""

from __future__ import annotations

from nearfar.engine.problem import Collective, Engine, OnDevice, Problem, State, StepLog
from nearfar.errors import OptionError
from nearfar.runtime.devices import load_torch, resolve, torch_device

__all__ = ["Collective", "Engine", "OnDevice", "Problem", "State", "StepLog", "make_engine"]


def make_engine(
    problem: Problem, state: State | None, *, device: str, threads: int, fast: bool = False
) -> Engine:
    """Return the engine for a device.

    Parameters
    ----------
    problem : Problem
    state : State or None
        The tables to continue from; None starts from ``problem.initial_state()``.
    device : str
        A device name, see `nearfar.runtime.devices`.
    threads : int
        Threads of the CPU engine.
    fast : bool
        Round the factors of matrix products to TF32; only on a GPU.

    Raises
    ------
    OptionError
        `device` is unknown or unavailable, it has too little memory, or it does not support `fast`.
    MissingExtraError
        `device` needs PyTorch, which is not installed.
    """
    name = resolve(device)
    if fast and not name.startswith("cuda"):
        raise OptionError(
            f"`fast` rounds matrix products on the tensor cores of a GPU, but `device` is {name!r};"
            f" omit `fast`."
        )
    if name == "cluster":
        from nearfar.engine.cluster.cluster_engine import ClusterEngine
        from nearfar.engine.cluster.process_group import join

        return ClusterEngine(problem, state, group=join(), threads=threads)
    if problem.module is not None:
        return _with_module(problem, state, name, threads, fast)
    if name == "cpu":
        from nearfar.engine.cpu.cpu_engine import CPUEngine

        return CPUEngine(problem, state, threads=threads)
    if name == "reference":
        from nearfar.engine.reference import ReferenceEngine

        return ReferenceEngine(problem, state)
    if problem.content is not None:
        raise OptionError(
            f"a hybrid with a linear encoder trains on the processor; got device={device!r}. Use"
            f" device='cpu'."
        )
    from nearfar.engine.gpu.gpu_engine import GPUEngine

    return GPUEngine(problem, state, device=torch_device(name) or name, fast=fast)


def _with_module(
    problem: Problem, state: State | None, name: str, threads: int, fast: bool
) -> Engine:
    """Return the engine of a hybrid with a module, which is PyTorch's, also on the processor."""
    if name == "reference":
        raise OptionError(
            "a hybrid with a Module trains in PyTorch; got device='reference'. Use device='cpu' or"
            " a GPU."
        )
    load_torch("A hybrid with a Module")
    from nearfar.engine.gpu.gpu_engine import GPUEngine

    device = torch_device(name) or "cpu"
    return GPUEngine(problem, state, device=device, fast=fast, threads=threads)

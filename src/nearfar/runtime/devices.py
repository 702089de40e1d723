"""The names of the available devices, and their resolution.

============== ================================================================================
"cpu"          this package's own compiled kernels, on the CPU
"reference"    plain loops in float64: slow, for verification, and for training only
"cluster"      the kernels of "cpu" in several processes that a launcher has started, such as
               torchrun, each with a part of the tables; for training only
"cuda"         PyTorch on the current GPU; "cuda:1" is the second GPU
"auto"         "cuda" if PyTorch is installed and detects a GPU, otherwise "cpu"
"torch:cpu"    PyTorch on the device that follows the colon; "torch:cuda" is "cuda"
============== ================================================================================

PyTorch is an extra. It is imported only when a device requires it.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import TYPE_CHECKING

from nearfar.errors import ForkError, MissingExtraError, OptionError
from nearfar.runtime.checks import said
from nearfar.runtime.extras import load_extra
from nearfar.runtime.forks import openmp_threads

if TYPE_CHECKING:
    import torch

OWN = ("cpu", "reference", "cluster")
"""The devices whose kernels are not PyTorch's; a cluster needs torch.distributed."""
_FOR_TRAINING = ("reference", "cluster")
_CUDA = re.compile(r"cuda(?::(\d+))?")
_INSTEAD = "use device='cpu', or 'auto', which selects a GPU if there is one"


def load_torch(asking: str = "This") -> ModuleType:
    """Import PyTorch. In a forked process it computes on one thread from then on.

    Parameters
    ----------
    asking : str
        What needs PyTorch; the error message begins with it.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    """
    missing = f'{asking} needs PyTorch, which is not installed: `pip install "nearfar[torch]"`.'
    torch: ModuleType = load_extra("torch", missing)
    usual = torch.get_num_threads()
    if (threads := openmp_threads(usual)) != usual:
        torch.set_num_threads(threads)
    return torch


def resolve(device: str) -> str:
    """Return the canonical name of a device, after checking that it can be used.

    Parameters
    ----------
    device : str
        "cpu", "reference", "cluster", "auto", "cuda", "cuda:1", ... or "torch:" and a device of
        PyTorch.

    Returns
    -------
    str
        `device` unchanged, except that "auto" becomes "cuda" or "cpu", and that "torch:" before
        "cuda" is removed.

    Raises
    ------
    OptionError
        `device` is none of these, or this machine does not have it.
    MissingExtraError
        The device needs PyTorch, which is not installed.
    ForkError
        The device is a GPU that the parent of this forked process has used.

    Examples
    --------
    >>> resolve("cpu")
    'cpu'
    """
    if not isinstance(device, str):
        raise _unknown(said(device))
    if device in OWN:
        return device
    if device == "auto":
        return _best()
    name = device.removeprefix("torch:")
    if _CUDA.fullmatch(name):
        _check_gpu(name)
        return name
    if not name or name == device:
        raise _unknown(repr(device))
    _check_usable(name)
    return device


def resolve_ranking(device: str) -> str:
    """Return the canonical name of a device for ranking; not "reference" or "cluster"."""
    name = resolve(device)
    if name in _FOR_TRAINING:
        raise OptionError(
            f"`device` is {name!r}, which is for training only; rank with device='cpu'."
        )
    return name


def torch_device(device: str) -> torch.device | None:
    """Return the PyTorch device for a resolved name; None for those of `OWN`.

    Examples
    --------
    >>> torch_device("cpu")
    """
    if device in OWN:
        return None
    found: torch.device = load_torch(f"device={device!r}").device(device.removeprefix("torch:"))
    return found


def describe(device: str) -> str:
    """Return a readable description of a resolved device; for "cuda" it names the GPU.

    Examples
    --------
    >>> describe("cpu")
    'cpu'
    """
    if not _CUDA.fullmatch(device):
        return device
    gpu = load_torch(f"device={device!r}").cuda.get_device_name(torch_device(device))
    return f"{device} ({gpu})"


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a GPU in bytes; None for other devices, which do not report it."""
    if device.type != "cuda":
        return None
    cuda = load_torch().cuda
    free, _ = cuda.mem_get_info(device)
    return int(free + cuda.memory_reserved(device) - cuda.memory_allocated(device))


def _unknown(shown: str) -> OptionError:
    return OptionError(
        "`device` must be one of cpu, reference, auto, cuda, cuda:1, ..., torch:<a device of"
        f" PyTorch> or cluster; got {shown}."
    )


def _best() -> str:
    try:
        torch = load_torch()
        return "cuda" if not _left_gpu_behind(torch) and _n_gpus(torch) else "cpu"
    except MissingExtraError:
        return "cpu"


def _n_gpus(torch: ModuleType) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _left_gpu_behind(torch: ModuleType) -> bool:
    """Return whether this process was forked from one that had used a GPU."""
    return bool(getattr(torch.cuda, "_is_in_bad_fork", bool)())


def _check_gpu(name: str) -> None:
    torch = load_torch(f"device={name!r}")
    if _left_gpu_behind(torch):
        raise ForkError(
            f"`device` is {name!r}, but this process was forked from one that had already used the"
            " GPU, and cannot use it itself. Start processes by spawn, such as with"
            ' multiprocessing.get_context("spawn").Pool().'
        )
    n_gpus, index = _n_gpus(torch), int(name.partition(":")[2] or 0)
    if n_gpus == 0:
        raise OptionError(
            f"`device` is {name!r}, but PyTorch {torch.__version__} finds no GPU that it can use;"
            f" {_INSTEAD}."
        )
    if index >= n_gpus:
        there = "1 GPU, cuda:0" if n_gpus == 1 else f"{n_gpus} GPUs, cuda:0 to cuda:{n_gpus - 1}"
        raise OptionError(f"`device` is {name!r}, but PyTorch finds {there}; {_INSTEAD}.")


def _check_usable(name: str) -> None:
    """Raise if a number cannot be written to a PyTorch device and read back."""
    torch = load_torch(f"device='torch:{name}'")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise OptionError(
            f"`device` is 'torch:{name}', which PyTorch {torch.__version__} cannot use here"
            f" ({why}); {_INSTEAD}."
        ) from error

"""What stands beside the GPU engine in gpu.py: made-up data, the machine's own pace, plain torch.

Nothing here needs more than torch, triton, numpy and scipy: common.py has the same data and rounds
for machines that have polars as well.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nearfar.runtime.threads import available_threads

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


# ------------------------------------------------------------------------------------ data


@dataclass(frozen=True, eq=False)
class Interactions:
    """As much of `nearfar.Interactions` as engines ask for; the real one needs polars."""

    n_users: int
    n_items: int
    indptr: Int64
    """(N + 1,) the items of user u are ``items[indptr[u]:indptr[u + 1]]``, ascending."""
    items: Int32

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.items)

    @cached_property
    def user_counts(self) -> Int64:
        """(N,) pairs of each user."""
        return np.diff(self.indptr)

    @cached_property
    def item_counts(self) -> Int64:
        """(M,) pairs of each item."""
        return np.bincount(self.items, minlength=self.n_items)

    def pair_users(self) -> Int32:
        """(n_pairs,) the user of each pair."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), self.user_counts)


def from_pairs(users: Int64, items: Int64, n_users: int, n_items: int) -> Interactions:
    """Sort pairs by user and item; the second of two equal ones is dropped."""
    user, item = np.divmod(np.unique(users * np.int64(n_items) + items), n_items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))])
    return Interactions(n_users, n_items, indptr.astype(np.int64), item.astype(np.int32))


def made_up(n_users: int, n_items: int, n_pairs: int, seed: int = 0) -> Interactions:
    """Draw pairs: users uniformly, items with a popularity of rank^-0.8; common.made_up_pairs."""
    rng = np.random.default_rng(seed)
    item_of_rank = rng.permutation(n_items)
    ranks = (n_items * rng.random(n_pairs) ** 5).astype(np.int64)
    return from_pairs(rng.integers(0, n_users, n_pairs), item_of_rank[ranks], n_users, n_items)


# --------------------------------------------------------------------------------- machine


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def took(device: torch.device, work: Callable[[], object]) -> float:
    """Time a piece of work by the host's clock, from an idle device to an idle device."""
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def least(device: torch.device, work: Callable[[], object], times: int = 5) -> float:
    """Time some work several times, after once for nothing, and give the least."""
    work()
    return min(took(device, work) for _ in range(times))


@dataclass(frozen=True)
class Machine:
    """What the device does at best, and what it is."""

    device: torch.device
    copy: float
    """Bytes a second, read or written, of copying a long array."""
    launch: float
    """Seconds that an empty kernel of 1,024 programs takes, one of a thousand in a CUDA graph."""
    float32: float
    """Operations a second of a large product by cuBLAS."""
    tf32: float

    @classmethod
    def measured(cls, device: torch.device, numbers: int, side: int) -> Machine:
        """Measure with arrays of `numbers` entries and matrices of `side` rows."""
        products = (_product(device, side, fast) for fast in (False, True))
        return cls(device, _copy(device, numbers), _launch(device), *products)

    def floor(self, launches: int, n_bytes: float, flops: float, fast: bool) -> float:
        """Add up the seconds of a step that did nothing but launch, move bytes and multiply.

        They are added, for a launch that needs what another gives does not overlap with it.
        Without `fast` a product may still take tensor cores: three products of TF32 make one that
        is as good as float32.
        """
        pace = self.tf32 if fast else max(self.float32, self.tf32 / 3)
        return launches * self.launch + n_bytes / self.copy + flops / pace

    def line(self) -> dict[str, Any]:
        """Give the machine's line of the table."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "no GPU",
            "cores": available_threads(),
            "torch": torch.__version__,
            "triton": _triton_version(),
            "cuda": torch.version.cuda,
            "driver": _driver() if cuda else None,
            "copy_gb_s": round(self.copy / 1e9, 1),
            "empty_kernel_us": round(1e6 * self.launch, 3),
            "float32_tflops": round(self.float32 / 1e12, 3),
            "tf32_tflops": round(self.tf32 / 1e12, 3),
        }


def host_bytes() -> float | None:
    """Read how much memory can still be taken, where /proc/meminfo says it."""
    file = Path("/proc/meminfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("MemAvailable"):
            return 1024.0 * int(line.split()[1])
    return None


def _copy(device: torch.device, numbers: int) -> float:
    a = torch.ones(numbers, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / least(device, lambda: b.copy_(a))


def _product(device: torch.device, side: int, fast: bool) -> float:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = fast
    try:
        a, out = torch.randn(2, side, side, device=device)
        return 2.0 * side**3 / least(device, lambda: torch.mm(a, a, out=out))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _launch(device: torch.device, times: int = 1000) -> float:
    """Time an empty kernel of 1,024 programs; without a GPU, the smallest call of torch."""
    z = torch.zeros(16, device=device)
    if device.type != "cuda":
        return least(device, lambda: [z.zero_() for _ in range(times)]) / times
    import triton

    @triton.jit
    def empty(x):  # type: ignore[no-untyped-def]
        pass

    empty[(1024,)](z)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            empty[(1024,)](z)
    return least(device, graph.replay) / times


def _triton_version() -> str | None:
    if find_spec("triton") is None:
        return None
    import triton

    return str(triton.__version__)


def _driver() -> str | None:
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.split()
    return found[0] if found else None


# ---------------------------------------------------------------------------------- rivals


class TorchCML:
    """Eq. 1 on the sphere in plain torch, eager, as people write it.

    Two embeddings, rows divided by their length, the hinge of margin 1 with the nearest negative.
    Pairs and all that is drawn are on the device from the start, and nothing waits for the host.
    Negatives are drawn uniformly **without** looking whether the user has them, which spares this
    model work that nearfar does.

    Parameters
    ----------
    sparse : bool
        With `torch.optim.SparseAdam`, which moves only the rows of the batch and is another
        optimiser than Adam. Else with `torch.optim.Adam`, fused on a GPU, over every row.
    """

    def __init__(
        self, data: Interactions, device: torch.device, dim: int, batch: int, negatives: int,
        *, sparse: bool,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.device, self.batch, self.negatives = device, batch, negatives
        self.users = torch.from_numpy(data.pair_users().astype(np.int64)).to(device)
        self.items = torch.from_numpy(data.items.astype(np.int64)).to(device)
        self.n_items = data.n_items
        self.tables = nn.ModuleList(
            nn.Embedding(n, dim, sparse=sparse, device=device) for n in (data.n_users, self.n_items)
        )
        for table in self.tables:  # rows of length 1 or so, as nearfar starts from
            nn.init.normal_(table.weight, std=dim**-0.5)
        parameters, rate = list(self.tables.parameters()), 5e-3
        self.optimiser: torch.optim.Optimizer
        if sparse:
            self.optimiser = torch.optim.SparseAdam(parameters, lr=rate)
        else:
            fused = device.type == "cuda"
            self.optimiser = torch.optim.Adam(parameters, lr=rate, fused=fused)
        self._shuffled: list[Tensor] = []

    @staticmethod
    def bytes_needed(n_rows: int, dim: int, sparse: bool) -> int:
        """Count the bytes of parameter, moments and, if it is dense, gradient."""
        return 4 * n_rows * dim * (3 if sparse else 4)

    def run(self, count: int) -> None:
        """Do `count` steps, and wait for them."""
        for _ in range(count):
            if not self._shuffled:
                order = torch.randperm(len(self.users), device=self.device)
                self._shuffled = list(order.split(self.batch))
            self.step(self._shuffled.pop())
        synchronise(self.device)

    def learns(self, passes: int = 30) -> bool:
        """Whether the loss of a few batches falls when nothing else is trained on."""
        order = torch.randperm(len(self.users), device=self.device)
        batches = order[: 8 * self.batch].split(self.batch)
        losses = [torch.stack([self.step(b) for b in batches]).mean() for _ in range(passes)]
        return bool(losses[-1] < 0.9 * losses[0])

    def step(self, chosen: Tensor) -> Tensor:
        """Train on the pairs `chosen`; give the mean loss of a pair before that."""
        users, items = self.users[chosen], self.items[chosen]
        drawn = torch.randint(self.n_items, (len(chosen), self.negatives), device=self.device)
        u = nn.functional.normalize(self.tables[0](users))  # (B, d)
        v = nn.functional.normalize(self.tables[1](items))  # (B, d)
        w = nn.functional.normalize(self.tables[1](drawn), dim=2)  # (B, n, d)
        positive = (u - v).square().sum(1)
        nearest = (u[:, None] - w).square().sum(2).amin(1)
        loss = torch.relu(1.0 + positive - nearest).sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach() / len(chosen)

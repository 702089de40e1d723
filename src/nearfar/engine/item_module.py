"""A torch module that encodes the content of items: its weights as rows of the tables.

The weights of the module and its buffers, P numbers in the order of `torch.nn.Module.parameters`
and `buffers`, fill F = ceil(P / d) rows of d numbers after the N + M joint rows, the last one up
with 0. So the optimiser, the mean over epochs, checkpoints and the tables of the best epoch treat
them like all other vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.data.contents import Contents
from nearfar.engine.content import Content
from nearfar.errors import DataError, DivergedError, OptionError
from nearfar.method.hybrid import Hybrid, Module
from nearfar.runtime.arrays import Bool, Float32, Int32, Int64
from nearfar.runtime.devices import load_torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as TorchModule

_AT_ONCE = 256


@dataclass(eq=False)
class ItemModule:
    """The module of a hybrid, and the contents of its items."""

    encoder: Module
    dim: int
    """d."""
    contents: Contents
    places: Int32
    """(M,) the row of the contents of each item; -1 without one."""
    seed: int = 0
    """The seed under which the module is built."""
    device: str = "cpu"
    """Where all contents are encoded after training, a device of PyTorch."""
    known_rows: int | None = None
    """F, where it is known without building the module."""

    @cached_property
    def net(self) -> TorchModule:
        """The module as it is built, with its initial weights.

        Raises
        ------
        OptionError
            `build` returns something else, or a module with a parameter that is not real.
        """
        torch = load_torch("A hybrid with a Module")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.encoder.build(self.dim)
        if not isinstance(net, torch.nn.Module):
            raise OptionError(
                f"`build` must return a torch.nn.Module; {self.encoder.name} returned"
                f" {type(net).__name__}."
            )
        complex_ones = [name for name, one in net.named_parameters() if one.is_complex()]
        if complex_ones:
            raise OptionError(
                f"a module must have real weights; {complex_ones[0]!r} of {self.encoder.name} is"
                " complex."
            )
        found: TorchModule = net.float()
        return found

    @property
    def n_rows(self) -> int:
        """F."""
        if self.known_rows is not None:
            return self.known_rows
        return -(-sum(one.numel() for one in tensors_of(self.net)) // self.dim)

    def check_complete(self, has: Bool) -> None:
        """Raise if the contents of items that have content cannot be read, `has` (M,).

        Raises
        ------
        OptionError
            The model was loaded, and its contents were not given again.
        """
        lacking = np.flatnonzero(has & (self.places < 0))
        if len(lacking):
            raise OptionError(
                f"a model does not keep the contents of its items, and those of {len(lacking):,} of"
                f" {np.count_nonzero(has):,} items were not given: pass `item_features`=Contents"
                " of all of them."
            )

    def initial(self) -> Float32:
        """Return the initial weights as rows, (F, d)."""
        rows: Float32 = self.as_rows(tensors_of(self.net)).numpy()
        return rows

    def as_rows(self, tensors: list[Tensor], device: Any = "cpu") -> Tensor:
        """Return the numbers of tensors, one after the other, as rows (F, d), filled up with 0.

        `device` is that of the tensors; see `load_rows` for the way back.
        """
        torch, size = load_torch(), self.n_rows * self.dim
        flat = [one.detach().reshape(-1).float() for one in tensors]
        rest = torch.zeros(size - sum(map(len, flat)), device=device)
        rows: Tensor = torch.cat([*flat, rest])
        return rows.view(-1, self.dim)

    def reading(self, contents: Contents, places: Int32, device: str | None = None) -> ItemModule:
        """Return the same module over other contents, and on another device if it is given."""
        made = copy(self)  # with the module, if it was built
        made.contents, made.places, made.device = contents, places, device or self.device
        return made

    def loaded(self, weights: Tensor, device: Any) -> TorchModule:
        """Return a new module on a device, with the weights in rows, (F, d)."""
        net = deepcopy(self.net).to(device)
        load_rows(tensors_of(net), weights.to(device))
        return net

    def encode(self, items: Int64, weights: Float32) -> Float32:
        """Return g(x) of items with content, (n, d), by the weights in rows, not normalised.

        Raises
        ------
        DataError
            A content cannot be read, or the module cannot encode it.
        """
        rows = load_torch().from_numpy(np.array(weights, np.float32))
        net = self.loaded(rows, self.device.removeprefix("torch:"))
        return encode_all(net, self.contents, self.places[items], self.encoder, self.dim)


def make_module_content(
    n_users: int, n_items: int, hybrid: Hybrid, module: ItemModule, has: Bool
) -> Content:
    """Return the rules by which delta is learned, of the items that have content, (M,).

    Their rows have an entry in column 0, which stands for the weights of the module.
    """
    counts = np.concatenate([np.zeros(n_users, np.int64), has.astype(np.int64)])
    n = int(has.sum())
    return Content(
        np.concatenate([[0], np.cumsum(counts)]),
        np.zeros(n, np.int32),
        np.zeros(n, np.float32),
        module.n_rows,
        n_users,
        np.array([hybrid.id_dropout] * 2),
        np.array([hybrid.id_decay] * 2, np.float32),
        np.array([hybrid.encoder.decay] * 2, np.float32),
        0,
    )


def load_rows(tensors: list[Tensor], rows: Tensor) -> None:
    """Put the numbers in rows (F, d) into the tensors of a module, one after the other."""
    torch = load_torch()
    flat, at = rows.reshape(-1), 0
    with torch.no_grad():
        for one in tensors:
            part = flat[at : at + one.numel()].view(one.shape)
            one.copy_(part if one.is_floating_point() else part.round())
            at += one.numel()


def encode_all(
    net: TorchModule, contents: Contents, rows: Int32, encoder: Module, dim: int
) -> Float32:
    """Return g(x) of rows of contents, (n, d), a chunk at a time and without a gradient."""
    torch = load_torch()
    points = np.empty((len(rows), dim), np.float32)
    size = encoder.chunk or _AT_ONCE
    with torch.no_grad(), _evaluating(net):
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            found = forward(net, contents, rows[part], encoder, dim)
            points[part] = found.cpu().numpy()
    return points


def forward(net: TorchModule, contents: Contents, rows: Int32, encoder: Module, dim: int) -> Tensor:
    """Return g(x) of rows of contents, a tensor (n, d), float32.

    Raises
    ------
    DataError
        A content cannot be read, the module raises, or it returns another shape.
    """
    torch = load_torch()
    batch = torch.as_tensor(contents.take(rows))
    device = next((one.device for one in tensors_of(net)), batch.device)
    mixed = encoder.precision == "bfloat16"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            points = net(batch.to(device))
    except Exception as error:  # the caller's code, which may raise anything
        raise DataError(
            f"The module {encoder.name} cannot encode contents of the shape"
            f" {tuple(batch.shape)}, {batch.dtype}, of the ids from"
            f" {contents.ids.id(int(rows[0]))!r}: {type(error).__name__}: {error}"
        ) from error
    shape = tuple(getattr(points, "shape", ()))
    if shape != (len(rows), dim):
        raise DataError(
            f"The module {encoder.name} must return vectors of the shape ({len(rows)}, {dim}); got"
            f" {shape or type(points).__name__} for the contents of the ids from"
            f" {contents.ids.id(int(rows[0]))!r}."
        )
    found: Tensor = points.float()
    return found


def check_finite(points: Tensor, contents: Contents, rows: Int32, encoder: Module) -> None:
    """Raise if a vector is not finite.

    Raises
    ------
    DivergedError
        The message names the id.
    """
    bad = (~points.detach().isfinite().all(1)).cpu().numpy()
    if bad.any():
        one = contents.ids.id(int(rows[int(bad.argmax())]))
        raise DivergedError(
            f"The module {encoder.name} returned a value that is not finite for the content of the"
            f" id {one!r}; try a smaller `learning_rate` of the Module."
        )


def tensors_of(net: TorchModule) -> list[Tensor]:
    """Return the parameters of a module, then its buffers."""
    return [*net.parameters(), *net.buffers()]


@contextmanager
def _evaluating(net: TorchModule) -> Iterator[None]:
    """Encode as in evaluation: without dropout, and with the statistics that were gathered."""
    before = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(before)

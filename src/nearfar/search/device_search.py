"""Exact search on a PyTorch device: `neighbours.top_k`, computed on the device.

Points, filters and scores stay on the device; only finished lists are copied to the host. Users are
processed in blocks and items in tiles, as in `nearfar.search.neighbours`, but a tile is large
enough to keep a GPU busy. `nearfar.search.order_keys` defines the order of ties.

Products are in float32, but cuBLAS adds in another order than the CPU. Scores may therefore differ
from those of `nearfar.search.neighbours.Points` in the last bits, and so may the order of near
ties.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nearfar.errors import OptionError
from nearfar.runtime.arrays import Bool, Float32, Int32, Int64
from nearfar.runtime.devices import free_bytes, resolve, torch_device
from nearfar.search.neighbours import Exclusion, TopK, check_shapes, not_a_number
from nearfar.search.order_keys import EXACT, NOTHING, QUICK, Way, read

TILE_BYTES = 2**29
"""Memory limit for a tile and everything computed from it; lower if the device has less."""
BLOCK_USERS = 1024
"""Users of a tile if the items do not fit into one tile; with fewer the product is slow."""
_LISTED_BYTES = 64
"""Memory needed for each entry of the lists while they are merged."""


class DevicePoints:
    """Points on a device: a scorer that searches by itself (`neighbours.Finder`).

    The score is ``queries[a] . targets[b] + offset[b]``, as with
    `nearfar.search.neighbours.Points`.

    Parameters
    ----------
    queries : float32 array or tensor of shape (n_users, dim)
    targets : float32 array or tensor of shape (n_items, dim)
    offset : float32 array or tensor of shape (n_items,), optional
        Arrays are copied to the device; tensors that are already there are used without a copy.
    device : str or torch.device
        Any name that `nearfar.runtime.devices.resolve` accepts, except "cpu" and "reference".

    Raises
    ------
    OptionError
        The device is not a PyTorch device, or has too little memory for the points.
    DataError
        The shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nearfar.search.neighbours import top_k
    >>> points = DevicePoints(np.eye(2), np.eye(2), device="torch:cpu")
    >>> top_k(points, [0, 1], k=1).items.tolist()
    [[0], [1]]
    """

    def __init__(
        self,
        queries: Float32 | Tensor,
        targets: Float32 | Tensor,
        offset: Float32 | Tensor | None = None,
        *,
        device: str | torch.device,
    ) -> None:
        shapes = [None if x is None else tuple(x.shape) for x in (queries, targets, offset)]
        check_shapes(*shapes)  # type: ignore[arg-type]
        self.device = _place(device)
        try:
            self.queries, self.targets = self._placed(queries), self._placed(targets)
            self.offset = None if offset is None else self._placed(offset)
        except torch.cuda.OutOfMemoryError as error:
            n, dim = len(queries) + len(targets), queries.shape[1]
            raise _no_room(self.device, f"{n:,} points of {dim} numbers", 4 * n * dim) from error

    def _placed(self, table: Float32 | Tensor) -> Tensor:
        if isinstance(table, Tensor):
            return table.detach().to(self.device, torch.float32).contiguous()
        return torch.tensor(np.ascontiguousarray(table, np.float32), device=self.device)

    @property
    def n_users(self) -> int:
        """Number of query points."""
        return len(self.queries)

    @property
    def n_items(self) -> int:
        """Number of target points."""
        return len(self.targets)

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Compute one tile and copy it to the host; see `nearfar.search.neighbours.Scorer`."""
        tile = torch.empty(out.shape, device=self.device)
        self.score(torch.tensor(rows, device=self.device), first_item, tile)
        out[:] = tile.cpu().numpy()

    def score(self, rows: Tensor, first_item: int, out: Tensor) -> None:
        """Compute one tile on the device.

        Parameters
        ----------
        rows : integer tensor of shape (n_rows,)
        first_item : int
        out : float32 tensor of shape (n_rows, n_columns), contiguous
        """
        part = slice(first_item, first_item + out.shape[1])
        torch.mm(self.queries.index_select(0, rows), self.targets[part].T, out=out)
        if self.offset is not None:
            out += self.offset[part]

    def best(
        self,
        rows: Int32,
        k: int,
        *,
        exclude: Exclusion | None = None,
        allow: Bool | None = None,
        progress: Callable[[int], None],
    ) -> TopK:
        """Return the k best items of each row, exactly; see `nearfar.search.neighbours.top_k`.

        Raises
        ------
        DataError
            A score is NaN.
        OptionError
            The device has too little memory for the scores of a single user.
        """
        found = TopK.empty(len(rows), k)
        if len(rows) and self.n_items:
            _DeviceSearch(self, rows, exclude, allow, found).run(progress)
        return found


def _place(device: str | torch.device) -> torch.device:
    if isinstance(device, torch.device):
        return device
    place = torch_device(resolve(device))
    if place is None:
        raise OptionError(f"DevicePoints must be on a PyTorch device; got device={device!r}.")
    return place


def _no_room(device: torch.device, what: str, needed: int) -> OptionError:
    """Return the error for `what`, which needs more memory than the device has."""
    free = free_bytes(device)
    left = "" if free is None else f", and {free / 2**30:.2f} GiB is free"
    return OptionError(
        f"{device} has too little memory for {what}: that takes {needed / 2**30:.2f} GiB{left};"
        f" use device='cpu'."
    )


class _DeviceSearch:
    """The state of one call of `DevicePoints.best`: arguments on the device, result on the host."""

    def __init__(
        self,
        points: DevicePoints,
        rows: Int32,
        exclude: Exclusion | None,
        allow: Bool | None,
        found: TopK,
    ) -> None:
        self.points, self.rows, self.found = points, rows, found
        self.k = min(found.items.shape[1], points.n_items)
        self.hidden = None if exclude is None else _Hidden(rows, exclude, points.device)
        self.denied = None if allow is None else torch.tensor(~allow, device=points.device)
        free = free_bytes(points.device)
        self.room = TILE_BYTES if free is None else min(TILE_BYTES, free // 2)

    def run(self, progress: Callable[[int], None]) -> None:
        """Search block by block; halve the size of blocks when the device has too little memory."""
        n_rows, n_columns = self.tile(QUICK)
        start = 0
        while start < len(self.rows):
            places = np.arange(start, min(start + n_rows, len(self.rows)))
            if self.fits(places):
                start += len(places)
                progress(len(places))
            elif len(places) > 1:
                n_rows = len(places) // 2
            else:
                what = f"the scores of one user for {n_columns:,} items"
                raise _no_room(self.points.device, what, n_columns * EXACT.bytes_each)

    def fits(self, places: Int64) -> bool:
        """Search for the rows at `places`; return False if there is too little memory."""
        try:
            doubtful = places[self.answer(places, QUICK)]
            n_rows, _ = self.tile(EXACT)
            for start in range(0, len(doubtful), n_rows):
                self.answer(doubtful[start : start + n_rows], EXACT)
        except torch.cuda.OutOfMemoryError:
            return False
        return True

    def tile(self, way: Way) -> tuple[int, int]:
        """Return the shape of a tile."""
        at_once = self.room // (way.bytes_each * min(len(self.rows), BLOCK_USERS))
        n_columns = max(1, min(self.points.n_items, at_once))
        bytes_a_row = n_columns * way.bytes_each + self.k * _LISTED_BYTES
        return max(1, self.room // bytes_a_row), n_columns

    def answer(self, places: Int64, way: Way) -> Bool:
        """Find the lists of the rows at `places`; return which of them may be wrong."""
        points, device = self.points, self.points.device
        _, n_columns = self.tile(way)
        rows = torch.tensor(self.rows[places], device=device)
        hidden = None if self.hidden is None else self.hidden.entries(places)
        buffer = torch.empty(len(places) * n_columns + 1, device=device)
        best = torch.full((len(places), self.k), NOTHING, dtype=torch.int64, device=device)
        doubtful = torch.zeros(len(places), dtype=torch.bool, device=device)
        for first in range(0, points.n_items, n_columns):
            width = min(n_columns, points.n_items - first)
            tile = buffer[: len(places) * width].view(len(places), width)
            points.score(rows, first, tile)
            if self.denied is not None:
                tile.masked_fill_(self.denied[first : first + width], -torch.inf)
            if hidden is not None:
                _hide(buffer, first, width, *hidden)
            from_last = points.n_items - 1 - torch.arange(first, first + width, device=device)
            keys, uncertain = way.choose(tile, from_last, self.k)
            best = torch.cat([best, keys], dim=1).topk(self.k).values
            doubtful |= uncertain
        self.keep(places, best, check=way is EXACT)
        return doubtful.cpu().numpy()

    def keep(self, places: Int64, keys: Tensor, check: bool) -> None:
        """Copy lists to the host."""
        items, scores = (part.cpu().numpy() for part in read(keys, self.points.n_items))
        if check and (bad := np.flatnonzero(np.isnan(scores[:, 0]))).size:
            raise not_a_number(int(self.rows[places[bad[0]]]), int(items[bad[0], 0]))
        self.found.items[places, : self.k] = items
        self.found.scores[places, : self.k] = scores


class _Hidden:
    """The items left out of each row's list, on the device, only for the rows that are searched."""

    def __init__(self, rows: Int32, exclude: Exclusion, device: torch.device) -> None:
        indptr, items = exclude
        first, last = int(indptr[rows.min()]), int(indptr[rows.max() + 1])
        try:
            self.items = torch.tensor(items[first:last], device=device)
        except torch.cuda.OutOfMemoryError as error:
            what = f"{last - first:,} items to leave out"
            raise _no_room(device, what, 4 * (last - first)) from error
        self.starts, self.counts = indptr[rows] - first, indptr[rows + 1] - indptr[rows]

    def entries(self, places: Int64) -> tuple[Tensor, Tensor]:
        """Return rows of the tile and items, both int64, for the rows at `places`."""
        device, counts = self.items.device, self.counts[places]
        shift = torch.tensor(self.starts[places] - (counts.cumsum() - counts), device=device)
        n = int(counts.sum())  # known on the host, so there is no wait for the device
        rows = torch.arange(len(places), device=device)
        rows = rows.repeat_interleave(torch.tensor(counts, device=device), output_size=n)
        at = torch.arange(n, device=device) + shift[rows]
        return rows, self.items[at].to(torch.int64)


def _hide(buffer: Tensor, first: int, width: int, rows: Tensor, items: Tensor) -> None:
    """Set entries of the tile in `buffer` to -infinity; others go to its spare last element."""
    inside = (items >= first) & (items < first + width)
    place = torch.where(inside, rows * width + (items - first), len(buffer) - 1)
    buffer.index_fill_(0, place, -torch.inf)

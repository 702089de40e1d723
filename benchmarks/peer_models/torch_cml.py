"""The same model as nearfar's, written in PyTorch the straightforward way.

Two embeddings, rows divided by their length, the hinge of margin 1 with the nearest of the
negatives, negatives drawn uniformly and drawn again where the user has them. `DenseAdam` is the
same optimiser as nearfar's; `SparseAdam` moves only the rows of the batch, which is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

import nearfar as nf
from peer_models import Factors, Setting

_REDRAWS = 20


class _TorchCML:
    """What both have in common; `sparse` says what the embeddings' gradients are."""

    sparse: bool
    make_optimiser: Callable[..., torch.optim.Optimizer]

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.use(threads)
        self.users = torch.from_numpy(train.pair_users().astype("int64"))
        self.items = torch.from_numpy(train.items.astype("int64"))
        self.n_items = train.n_items
        self.known = self.users * self.n_items + self.items  # ascending, as the pairs are
        self.batch, self.negatives = setting["batch"], setting.get("negatives", 1)
        self.tables = nn.ModuleList(
            nn.Embedding(n, 128, sparse=self.sparse) for n in (train.n_users, train.n_items)
        )
        for table in self.tables:  # rows of length 1 or so, as nearfar starts from
            nn.init.normal_(table.weight, std=128**-0.5)
        self.optimiser = type(self).make_optimiser(
            list(self.tables.parameters()), lr=setting["learning_rate"]
        )
        self.batches = self._batches()

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        torch.set_num_threads(threads)

    def epoch(self, positives: int | None = None) -> int:
        """Train a pass, or so many pairs, rounded up to whole batches."""
        done, goal = 0, len(self.users) if positives is None else positives
        while done < goal:
            chosen = next(self.batches)
            self._step(self.users[chosen], self.items[chosen])
            done += len(chosen)
        return done

    def factors(self) -> Factors:
        """Give the points on the sphere."""
        with torch.no_grad():
            users, items = (nn.functional.normalize(table.weight) for table in self.tables)
        return Factors(users.numpy(), items.numpy(), None)

    def _batches(self) -> Iterator[torch.Tensor]:
        """Cut shuffled passes into batches, for ever."""
        while True:
            yield from torch.randperm(len(self.users)).split(self.batch)

    def _step(self, users: torch.Tensor, items: torch.Tensor) -> None:
        negatives = self._draw(users)
        u = nn.functional.normalize(self.tables[0](users))  # (B, d)
        v = nn.functional.normalize(self.tables[1](items))  # (B, d)
        w = nn.functional.normalize(self.tables[1](negatives), dim=2)  # (B, n, d)
        positive = (u - v).square().sum(1)
        nearest = (u[:, None] - w).square().sum(2).amin(1)
        loss = torch.relu(1.0 + positive - nearest).sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _draw(self, users: torch.Tensor) -> torch.Tensor:
        """Draw (B, n) items that the users do not have; a hit after many redraws stays."""
        drawn = torch.randint(self.n_items, (len(users), self.negatives))
        for _ in range(_REDRAWS):
            keys = users[:, None] * self.n_items + drawn
            at = torch.searchsorted(self.known, keys).clamp_(max=len(self.known) - 1)
            hits = self.known[at] == keys
            count = int(hits.sum())
            if count == 0:
                break
            drawn[hits] = torch.randint(self.n_items, (count,))
        return drawn


class DenseAdam(_TorchCML):
    """Every step updates every row of both tables and of both moments."""

    sparse = False
    make_optimiser = torch.optim.Adam


class SparseAdam(_TorchCML):
    """A step updates only the rows of its batch."""

    sparse = True
    make_optimiser = torch.optim.SparseAdam

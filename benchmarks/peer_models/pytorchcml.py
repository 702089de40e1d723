"""PyTorchCML 0.3.1 (2022): collaborative metric learning in the unit ball, by dense Adam.

Its metadata asks for Python before 3.10 and torch before 2; it runs on newer ones where it is
installed without its dependencies. Its check of known positives (`strict_negative`) is off by
default and calls what SciPy no longer has, so negatives are any items, its default.
"""

from __future__ import annotations

import os

os.environ["TQDM_DISABLE"] = "1"  # its loop cannot be run without a progress bar

import numpy as np
import torch
from PyTorchCML.losses import MinTripletLoss
from PyTorchCML.models import CollaborativeMetricLearning
from PyTorchCML.samplers import BaseSampler
from PyTorchCML.trainers import BaseTrainer

import nearfar as nf
from peer_models import Factors, Setting


class PyTorchCML:
    """The library's own model, sampler, loss and loop. Pairs are drawn with replacement."""

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.use(threads)
        self.n_pairs, self.batch = train.n_pairs, setting["batch"]
        pairs = np.stack([train.pair_users(), train.items], axis=1).astype(np.int64)
        self.model = CollaborativeMetricLearning(train.n_users, train.n_items, n_dim=128)
        self.trainer = BaseTrainer(
            self.model,
            torch.optim.Adam(self.model.parameters(), lr=setting["learning_rate"]),
            MinTripletLoss(margin=1),
            BaseSampler(
                torch.from_numpy(pairs),
                train.n_users,
                train.n_items,
                device=torch.device("cpu"),
                batch_size=self.batch,
                n_neg_samples=setting.get("negatives", 1),
            ),
        )

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        torch.set_num_threads(threads)

    def epoch(self, positives: int | None = None) -> int:
        """Train as many draws as there are pairs, or so many, rounded up to whole batches."""
        n_batch = -(-(positives or self.n_pairs) // self.batch)
        self.trainer.fit(n_batch=n_batch, n_epoch=1)
        return n_batch * self.batch

    def factors(self) -> Factors:
        """Give the points; those that were never read are still to be clipped to the ball."""
        users, items = (
            torch.renorm(table.weight.detach(), 2, 0, 1.0).numpy()
            for table in (self.model.user_embedding, self.model.item_embedding)
        )
        return Factors(users, items, -0.5 * np.sum(items * items, axis=1))

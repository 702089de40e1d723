"""LightFM with the WARP loss: lock-free Adagrad, one pair at a time.

`lightfm-next` 1.19.0 is taken, the fork that still builds (lightfm 1.17 does not, and the compiled
1.18.7 of the fork calls what glibc has dropped); the module it installs is `lightfm`.
"""

from __future__ import annotations

import numpy as np
from lightfm import LightFM
from scipy.sparse import coo_matrix

import nearfar as nf
from peer_models import Factors, Setting


class LightFMWarp:
    """The library's own model. WARP draws up to `max_sampled` items until one violates the order.

    It becomes slower as it learns, because it has to look longer.
    """

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        users, items = train.pair_users().astype(np.int32), train.items.astype(np.int32)
        self.shape = (train.n_users, train.n_items)
        self.pairs = coo_matrix((np.ones(len(users), np.float32), (users, items)), self.shape)
        self.threads, self.rng = threads, np.random.default_rng(seed)
        self.model = LightFM(
            no_components=128,
            loss="warp",
            learning_rate=setting["learning_rate"],
            item_alpha=setting.get("alpha", 0.0),
            user_alpha=setting.get("alpha", 0.0),
            max_sampled=setting.get("max_sampled", 10),
            random_state=seed,
        )

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        self.threads = threads

    def epoch(self, positives: int | None = None) -> int:
        """Train a pass, or one over a random part of the pairs (only these count as known then)."""
        pairs = self.pairs
        if positives is not None and positives < pairs.nnz:
            part = self.rng.choice(pairs.nnz, positives, replace=False)
            rows, columns = self.pairs.row[part], self.pairs.col[part]
            pairs = coo_matrix((self.pairs.data[part], (rows, columns)), self.shape)
        self.model.fit_partial(pairs, epochs=1, num_threads=self.threads)
        return int(pairs.nnz)

    def factors(self) -> Factors:
        """Give the tables; the users' biases change no order."""
        biases, items = self.model.get_item_representations()
        return Factors(self.model.get_user_representations()[1], items, biases)

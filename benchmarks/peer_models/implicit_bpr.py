"""`implicit`: Bayesian personalised ranking by plain, lock-free SGD, one pair at a time."""

from __future__ import annotations

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix

import nearfar as nf
from peer_models import Factors, Setting


class ImplicitBPR:
    """The library's own model; negatives that the user has are recognised, its default.

    Its tables have d + 1 columns: the last one of a user is 1, of an item its bias. `fit` goes on
    from the tables it finds, so one iteration a call is a pass; the random generator is handed over
    as an object, because a number would give every pass the same draws.
    """

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        ones = np.ones(train.n_pairs, np.float32)
        self.pairs = csr_matrix(  # copies: the library wants arrays that it may write to
            (ones, train.items.astype(np.int32), train.indptr.astype(np.int32)),
            shape=(train.n_users, train.n_items),
        )
        self.model = BayesianPersonalizedRanking(
            factors=128,
            learning_rate=setting["learning_rate"],
            regularization=setting["regularization"],
            iterations=1,
            num_threads=threads,
            random_state=np.random.default_rng(seed),
        )

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        self.model.num_threads = threads

    def epoch(self, positives: int | None = None) -> int:
        """Train a pass: as many draws as there are pairs. It cannot stop earlier."""
        self.model.fit(self.pairs, show_progress=False)
        return int(self.pairs.nnz)

    def factors(self) -> Factors:
        """Split the bias off."""
        users, items = self.model.user_factors, self.model.item_factors
        return Factors(users[:, :-1], items[:, :-1], items[:, -1].copy())

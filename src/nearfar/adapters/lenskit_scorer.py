"""A scorer for LensKit: ``topn_pipeline(CMLScorer(epochs=30))``.

It trains on the distinct pairs of a LensKit dataset, whatever their ratings, and gives candidate
items the scores that `nearfar.CML.recommend` shows. Users without training interactions are
scored by the point that fold-in finds from their history.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from lenskit.data import Dataset, ItemList, QueryInput, RecQuery
from lenskit.pipeline import Component
from lenskit.training import Trainable, TrainingOptions
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer
from scipy.sparse import csr_array

from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import NotFittedError, OptionError
from nearfar.method.options import Options
from nearfar.method.prior import checked_setting
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.runtime.checks import said
from nearfar.search.scoring import closeness

_USUAL = TrainingOptions()


def _options(given: Any) -> Options:
    """Return options that were given as such or as plain values, which a configuration has."""
    if isinstance(given, Options):
        return given
    if not isinstance(given, dict):
        raise OptionError(f"`options` must be nearfar.Options or a dict; got {said(given)}.")
    return Options.from_dict(given)


class CMLConfig(BaseModel):
    """The configuration of `CMLScorer`, from which LensKit can make it again."""

    model_config = ConfigDict(extra="forbid")

    options: Annotated[Any, BeforeValidator(_options), PlainSerializer(Options.to_dict)] = Options()
    """All hyper-parameters, `nearfar.Options`."""
    epochs: int = 20
    """Passes over the training pairs."""
    popularity: Annotated[float, AfterValidator(checked_setting)] | None = None
    """The popularity dial; see `nearfar.CML.recommend`."""
    threads: int | None = None
    """Threads of training; None for the available cores."""


class CMLScorer(Component[ItemList], Trainable):
    """Scores items by collaborative metric learning, as a component of LensKit.

    Parameters
    ----------
    config : CMLConfig, optional
        Or its fields as keywords: ``CMLScorer(epochs=30, popularity=0.5)``.

    Notes
    -----
    `train` takes the seed from the random generator of LensKit's training options, and keeps a
    trained model if they say ``retrain=False``. The trained model is `model`.
    """

    config: CMLConfig
    model: CML

    def train(self, data: Dataset, options: TrainingOptions = _USUAL) -> None:
        """Train on the distinct pairs of a dataset.

        Parameters
        ----------
        data : lenskit.data.Dataset
        options : lenskit.training.TrainingOptions

        Raises
        ------
        OptionError
            `popularity` is above 0 and the model has no prior.
        """
        if hasattr(self, "model") and not options.retrain:
            return
        matrix = data.interaction_matrix(format="scipy", layout="csr")
        users, items = data.users.ids().tolist(), data.items.ids().tolist()
        ones = csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), matrix.shape)
        train = Interactions.from_csr(ones, users, items)
        self.model = CML(self.config.options).fit(
            train,
            epochs=self.config.epochs,
            seed=int(options.random_generator().integers(2**63)),
            threads=self.config.threads,
            progress=False,
        )
        self.model.dial(self.config.popularity)  # refused here, and not for each user
        self._users, self._items = data.users, data.items
        self._user_rows, self._item_rows = train.user_ids.rows(users), train.item_ids.rows(items)

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Return the candidate items with their scores; NaN where the model knows nothing.

        That is for an item without training interactions, and for all items of a user who has
        neither training interactions nor known items in the history of the query.

        Raises
        ------
        NotFittedError
            The scorer has not been trained.
        """
        if not hasattr(self, "model"):
            raise NotFittedError("The scorer has not been trained; call train(data) first.")
        scores = np.full(len(items), np.nan, np.float32)
        found = self._scores(RecQuery.create(query))
        if found is not None:
            rows, known = self._trained(items)
            scores[known] = found[rows[known]]
        return ItemList(items, scores=scores)

    def _trained(self, items: ItemList) -> tuple[Int32, Bool]:
        """Return the row of each item, and whether it has training interactions."""
        numbers = items.numbers(vocabulary=self._items, missing="negative")
        rows = self._item_rows[numbers]
        return rows, (numbers >= 0) & (self.model.interactions.item_counts[rows] > 0)

    def _scores(self, query: RecQuery) -> Float32 | None:
        """Return the scores of all items, (M,); None for a user of whom nothing is known."""
        dial, row = self.config.popularity, self._user_row(query)
        if row is not None:
            scorer = self.model.scorer(popularity=dial)
        else:
            liked = self._liked(query.history_items)
            if liked is None:
                return None
            row, user = 0, np.zeros(1, np.int32)
            scorer = self.model.fold_in_scorer(liked, user, popularity=dial)
        block = np.empty((1, scorer.n_items), np.float32)
        scorer.score_block(np.array([row], np.int32), 0, block)
        points = np.asarray(scorer.queries[row : row + 1])
        scores: Float32 = closeness(block, points, self.config.options.geometry)[0]
        return scores

    def _user_row(self, query: RecQuery) -> int | None:
        """Return the row of a user with training interactions, None for any other."""
        if query.user_id is None:
            return None
        number = self._users.number(query.user_id, missing=None)
        row = -1 if number is None else int(self._user_rows[number])
        return row if row >= 0 and self.model.interactions.user_counts[row] else None

    def _liked(self, history: ItemList | None) -> Interactions | None:
        """Return the known items of a history as those of one user; None if there is none."""
        if history is None:
            return None
        rows, known = self._trained(history)
        if not known.any():
            return None
        items = rows[known]
        axes = Ids.numbered(1), self.model.interactions.item_ids
        return Interactions.from_rows(np.zeros_like(items), items, *axes)

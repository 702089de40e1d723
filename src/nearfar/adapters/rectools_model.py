"""A model for RecTools: ``CMLModel(epochs=30).fit(dataset)``.

It trains on the distinct pairs of a RecTools dataset, whatever their weights, and its lists are
those of `nearfar.CML.recommend`. Users who are not among the training interactions are refused, as
by other models of RecTools that learn a vector for each user.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, PlainSerializer
from rectools.dataset import Dataset
from rectools.models.base import ModelBase, ModelConfig

from nearfar.data.interactions import Interactions
from nearfar.errors import OptionError
from nearfar.method.options import Options
from nearfar.method.prior import checked_setting
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.runtime.checks import said
from nearfar.search.neighbours import TopK, top_k
from nearfar.search.scoring import closeness, scorer_of

Triplet = tuple[Int32, Int32, Float32]
"""Users or items asked for, the items of their lists, and the scores, all of the same length."""


def _options(given: Any) -> Options:
    """Return options that were given as such or as plain values, which a configuration has."""
    if isinstance(given, Options):
        return given
    if not isinstance(given, dict):
        raise OptionError(f"`options` must be nearfar.Options or a dict; got {said(given)}.")
    return Options.from_dict(given)


class CMLModelConfig(ModelConfig):
    """The configuration of `CMLModel`, from which RecTools can make it again."""

    options: Annotated[Any, BeforeValidator(_options), PlainSerializer(Options.to_dict)] = Options()
    epochs: int = 20
    popularity: float | None = None
    seed: int = 0
    threads: int | None = None


class CMLModel(ModelBase[CMLModelConfig]):
    """Collaborative metric learning as a model of RecTools.

    Parameters
    ----------
    options : nearfar.Options, optional
        All hyper-parameters.
    epochs : int
        Passes over the training pairs.
    popularity : float, optional
        The popularity dial of lists for users; see `nearfar.CML.recommend`. Those of similar items
        are by distance alone.
    seed, threads
        As in `nearfar.CML.fit`.
    verbose : int
        Above 0 the progress of training is shown.

    Notes
    -----
    After `fit`, `model` is the `nearfar.CML`, whose ids are the internal ones of the dataset.
    """

    recommends_for_warm = False
    recommends_for_cold = False
    config_class = CMLModelConfig

    def __init__(
        self,
        options: Options | None = None,
        epochs: int = 20,
        popularity: float | None = None,
        seed: int = 0,
        threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose=verbose)
        self.options = Options() if options is None else _options(options)
        self.epochs = epochs
        self.popularity = None if popularity is None else checked_setting(popularity)
        self.seed, self.threads = seed, threads
        self.model: CML

    def _get_config(self) -> CMLModelConfig:
        names = ("options", "epochs", "popularity", "seed", "threads", "verbose")
        return CMLModelConfig(cls=self.__class__, **{name: getattr(self, name) for name in names})

    @classmethod
    def _from_config(cls, config: CMLModelConfig) -> Self:
        return cls(
            config.options, config.epochs, config.popularity, config.seed, config.threads,
            config.verbose,
        )  # fmt: skip

    def _fit(self, dataset: Dataset) -> None:
        self.model = CML(self.options).fit(
            _interactions(dataset),
            epochs=self.epochs,
            seed=self.seed,
            threads=self.threads,
            progress=self.verbose > 0,
        )
        self.model.dial(self.popularity)  # refused here, and not when lists are made

    def _recommend_u2i(
        self,
        user_ids: Any,
        dataset: Dataset,
        k: int,
        filter_viewed: bool,
        sorted_item_ids_to_recommend: Any,
    ) -> Triplet:
        users = np.asarray(user_ids, np.int32)
        seen = _interactions(dataset) if filter_viewed else None
        found = top_k(
            self.model.scorer(popularity=self.popularity),
            users,
            k,
            exclude=None if seen is None else (seen.indptr, seen.items),
            allow=self._allowed(sorted_item_ids_to_recommend),
            threads=self.threads,
        )
        return self._flat(users, self.model.user_vectors, found)

    def _recommend_i2i(
        self, target_ids: Any, dataset: Dataset, k: int, sorted_item_ids_to_recommend: Any
    ) -> Triplet:
        items = np.asarray(target_ids, np.int32)
        points = self.model.item_vectors
        near = scorer_of(points, points, self.options.geometry)
        allow = self._allowed(sorted_item_ids_to_recommend)
        found = top_k(near, items, k, allow=allow, threads=self.threads)
        return self._flat(items, points, found)

    def _allowed(self, listed: Any) -> Bool:
        """Return which items may be in a list: trained ones, and of those the listed."""
        allowed = self.model.placed_items.copy()
        if listed is not None:
            some = np.zeros(len(allowed), np.bool_)
            some[np.asarray(listed)] = True
            allowed &= some
        return allowed

    def _flat(self, asked: Int32, points: Float32, found: TopK) -> Triplet:
        """Return lists one below the other, without their empty places, and 1 - D^2 / 2."""
        there = found.items >= 0
        repeated = np.repeat(asked, there.sum(axis=1))
        scores = closeness(found.scores, points[asked], self.options.geometry)
        return repeated, found.items[there], scores[there].astype(np.float32)


def _interactions(dataset: Dataset) -> Interactions:
    """Return the distinct pairs of a dataset, with its internal ids."""
    matrix = dataset.get_user_item_matrix(include_weights=False)
    shape = dataset.user_id_map.size, dataset.item_id_map.size
    matrix.resize(shape)
    return Interactions.from_csr(matrix)

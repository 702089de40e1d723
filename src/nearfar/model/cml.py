"""Collaborative metric learning: `CML`, the main class of the package.

A model consists of its options and two tables of points, users and items, in one space. The items
that a user likes are near the user's point; recommendation is a search for the nearest items.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from enum import Enum
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Never, Self

import numpy as np
import polars as pl

from nearfar.data import split
from nearfar.data.contents import Contents
from nearfar.data.features import Features
from nearfar.data.id_values import first_few
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.engine import Collective, Problem
from nearfar.errors import DataError, NotFittedError, OptionError
from nearfar.evaluation.result import Evaluation
from nearfar.method.co_occurrence import CoOccurrence
from nearfar.method.geometry import Geometry, normalise
from nearfar.method.hybrid import Hybrid
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import Averaging, Optimiser
from nearfar.method.options import Options
from nearfar.method.prior import ItemWeights, Prior, checked_setting
from nearfar.method.sampling import Sampler
from nearfar.model.asked import distinct_rows, known_rows, several
from nearfar.model.card import Effective
from nearfar.model.encoders import SIDES
from nearfar.model.explanation import Explanation, explain
from nearfar.model.fitted import KIND, Fitted, all_finite, read_model, write_model
from nearfar.model.given_content import AnyEncoders, GivenContent, given_content
from nearfar.model.item_map import Projection, project
from nearfar.model.parameters import parameters_of, with_parameters
from nearfar.model.retrieval import Retrieval
from nearfar.model.shards_written import finite_everywhere, write_shards
from nearfar.model.suggestions import unknown_option
from nearfar.runtime import store
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.runtime.checks import (
    a_callable,
    an_instance,
    checked_seed,
    local_path,
    one_of,
    said,
    share,
    switch,
    whole,
)
from nearfar.runtime.devices import resolve
from nearfar.search.diversity import checked_diversity
from nearfar.search.item_item import NearItems, near_items
from nearfar.search.neighbours import Index, Points
from nearfar.training.calibration import Calibration, uncalibrated
from nearfar.training.fold_in import MOST_STEPS, STEPS
from nearfar.training.run import Callback, Run, Trained
from nearfar.training.schedule import Schedule
from nearfar.training.warm_start import grown_state

if TYPE_CHECKING:
    from nearfar.search.device_search import DevicePoints

OPTION_NAMES = tuple(inspect.signature(Options).parameters)


class Unset(Enum):
    """The default of a keyword that was not passed; None is a valid value of some."""

    UNSET = "not given"

    def __repr__(self) -> str:
        """Return the text shown in signatures."""
        return self.name


UNSET: Final = Unset.UNSET


class CML:
    """Collaborative metric learning.

    Parameters
    ----------
    options : Options, optional
        All hyper-parameters, for example those of a preset; by default `Options()`.
    dim, geometry, sampler, negatives, batch, triplet, spread_out, decorrelate, optimiser, \
    averaging, prior, neighbours, items, users
        Single hyper-parameters, which replace those of `options`; see `Options`.

    Raises
    ------
    OptionError
        `options` is not `Options`, a name is not an option, or a value is out of its range.

    References
    ----------
    Hsieh et al., *Collaborative Metric Learning*, WWW 2017. Tran et al., *Improving Collaborative
    Metric Learning with Efficient Negative Sampling*, SIGIR 2019.

    Examples
    --------
    >>> import nearfar as nf
    >>> liked = [(u, i) for u in range(8) for i in range(8) if (u + i) % 2 == 0 and u != i]
    >>> model = nf.CML(dim=3, batch=8, optimiser=nf.Adam(0.03))
    >>> model = model.fit(nf.Interactions.from_pairs(liked), epochs=30)
    >>> model.recommend(0, k=1)["item_id"].to_list()  # 0 likes even items, and has 2, 4 and 6
    [0]
    """

    def __init__(
        self,
        options: Options | None = None,
        /,
        *,
        dim: int | Unset = UNSET,
        geometry: Geometry | Unset = UNSET,
        sampler: Sampler | Unset = UNSET,
        negatives: int | Unset | None = UNSET,
        batch: int | Unset = UNSET,
        triplet: Triplet | Unset = UNSET,
        spread_out: SpreadOut | Unset | None = UNSET,
        decorrelate: Decorrelate | Unset | None = UNSET,
        optimiser: Optimiser | Unset = UNSET,
        averaging: Averaging | Unset | None = UNSET,
        prior: Prior | Unset | None = UNSET,
        neighbours: CoOccurrence | Unset | None = UNSET,
        items: Hybrid | Unset | None = UNSET,
        users: Hybrid | Unset | None = UNSET,
        **unknown: Never,
    ) -> None:
        start = Options() if options is None else _checked_options(options)
        first = next(iter(unknown), None)
        if first is not None:
            of_fit = inspect.signature(self.fit).parameters
            raise unknown_option(first, unknown[first], start, of_fit)
        named = {
            "dim": dim,
            "geometry": geometry,
            "sampler": sampler,
            "negatives": negatives,
            "batch": batch,
            "triplet": triplet,
            "spread_out": spread_out,
            "decorrelate": decorrelate,
            "optimiser": optimiser,
            "averaging": averaging,
            "prior": prior,
            "neighbours": neighbours,
            "items": items,
            "users": users,
        }
        given: dict[str, Any] = {name: one for name, one in named.items() if one is not UNSET}
        self.options = replace(start, **given)
        self._fitted: Fitted | None = None
        self._searched: Retrieval | None = None

    def __repr__(self) -> str:
        """Return the options that differ from the defaults."""
        default = vars(Options())
        options = vars(self.options)
        changed = {name: value for name, value in options.items() if value != default[name]}
        shown = (f"{name}={changed[name]!r}" for name in OPTION_NAMES if name in changed)
        return f"CML({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies and for pickle, without what is computed on first use."""
        return {**vars(self), "_searched": None}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options by name, as scikit-learn's `clone` and searches ask for them.

        Parameters
        ----------
        deep : bool
            Also the fields of the options, as ``sampler__beta``.

        Examples
        --------
        >>> CML(dim=8).get_params()["sampler__beta"]
        0.8
        """
        return parameters_of(self.options, deep)

    def set_params(self, **params: Any) -> Self:
        """Replace options, also single fields of them, and return the model.

        Parameters
        ----------
        **params
            Names as of `get_params`, such as ``dim=64, sampler__beta=0.5``.

        Raises
        ------
        OptionError
            A name is not an option, or a value is out of its range.
        DataError
            The model is trained, and its points belong to its options; use scikit-learn's `clone`,
            or a new `CML`.

        Examples
        --------
        >>> CML().set_params(dim=8, sampler__beta=0.5)
        CML(dim=8, sampler=Shared(beta=0.5))
        """
        if self._fitted is not None and params:
            raise DataError(
                "`set_params` cannot change a trained model, whose points belong to its options;"
                " make a new one: CML(model.options).set_params(...)."
            )
        self.options = with_parameters(self.options, params)
        return self

    # ------------------------------------------------------------------------------- training

    def fit(
        self,
        train: Interactions,
        *,
        item_features: Features | Contents | None = None,
        user_features: Features | None = None,
        epochs: int = 50,
        validation: float | Interactions | None = None,
        every: int = 1,
        metric: str = "ndcg",
        k: int = 50,
        patience: int | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_seconds: float = 60.0,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        threads: int | None = None,
        device: str = "cpu",
        fast: bool = False,
        progress: bool | None = None,
        out: str | PathLike[str] | None = None,
    ) -> Self:
        """Learn the points from interactions.

        Parameters
        ----------
        train : Interactions
        item_features, user_features : Features, optional
            What the items (users) are, for a model with ``items=Hybrid()`` (``users=Hybrid()``).
            Rows are joined by id; ids that are not in `train` are left out, and those without a row
            are learned from interactions alone. Vocabularies and scales are of the items (users)
            that have training interactions. Items that a `Module` encodes have `Contents`.
        epochs : int
            Passes over the training pairs.
        validation : float, Interactions or None
            A share of each user's interactions to hold out (any real number between 0 and 1), or a
            validation part. It is evaluated every `every` epochs, and the points of the epoch that
            is best by `metric` at `k` are kept. Without it, the points of the last epoch are kept.
            Users of a validation part who have no training interactions are left out of it, with a
            warning.
        patience : int, optional
            Stop after this number of successive evaluations without improvement. It needs
            `validation`.
        checkpoint : path, optional
            A folder in which the run is saved every `checkpoint_seconds` and at its end. If it
            contains the same run, training resumes from there, to the same bits.
        callbacks : sequence of callables
            Each is called with a `nearfar.training.run.Epoch` after every epoch; training stops if
            one returns a true value, such as True or numpy's True.
        seed : int
            Seed of all random numbers of the run, from 0 to 2^64 - 1.
        threads : int, optional
            Number of threads. None uses the available cores, as far as a step has work for them.
            The result does not depend on it.
        device : str
            "cpu"; "cuda", "cuda:1", ...; "auto", a GPU if there is one; "reference": plain loops in
            float64, slow, for checking; or "torch:" and any device of PyTorch. All except "cpu" and
            "reference" need the extra ``nearfar[torch]``. "cluster" trains in the processes that
            torchrun or another launcher has started, of which each calls `fit` with the same
            arguments and has the same model in the end; with `out`, none of them holds all points.
        fast : bool
            On a GPU: compute matrix products on tensor cores in TF32 (10 bits of mantissa instead
            of 23). Faster with `Shared` and `TwoStage`; results differ in the third digit of a
            product. Refused on the CPU.
        progress : bool, optional
            Whether to show a progress bar; if None, only if standard error is a terminal.
        out : path, optional
            A folder to save the model in at the end, as `save` does; also the model of a run that
            is interrupted after its first epoch. On a cluster every process writes a part of the
            points there and maps all of them from it, so all must see the folder; a hybrid is
            written by the first process, and all have it whole.

        Returns
        -------
        CML
            This model.

        Raises
        ------
        OptionError
            An option is out of range or of a wrong type, or `device` is not available.
        DataError
            `train` is not `Interactions`; every user has every item, so that there are no
            negatives; or the validation part has other axes.
        EmptyDataError
            The validation part has no interactions of users who have training interactions.
        MissingExtraError
            `device` needs PyTorch.
        StoreError
            `out` or `checkpoint` contains something else, or cannot be written.
        DivergedError
            The loss is NaN or infinite. The best points so far, if any, are kept.
        KeyboardInterrupt
            Raised again; the model keeps the best points so far (or the current ones) and is
            usable. If gamma was not found yet, it is by the rule.

        Warns
        -----
        NearfarWarning
            The temperature for shared negatives is far from the value recommended for the number of
            items; most negatives could not be drawn; or, with a validation part, NDCG has fallen
            below 0.7 of its best, or never exceeded that of recommending popular items. The warning
            names the cause and the remedy.
        """
        train, seed = checked_interactions("train", train), checked_seed(seed)
        schedule = Schedule(epochs, every, metric, k, patience)
        if out is not None:
            store.check_replaceable(out := local_path(out, "out"), kind=KIND)
        if patience is not None and validation is None:
            raise OptionError(
                f"`patience` is {said(patience)}, but there is nothing to evaluate after an epoch:"
                " it needs `validation`, such as 0.1."
            )
        learned, held_out = _divided(train, validation, seed)
        given = {"users": user_features, "items": item_features}
        known = given_content(self.options, learned, given, seed, device)
        steps = -(-max(learned.n_pairs, 1) // self.options.batch) * schedule.epochs
        problem = Problem(learned, self.options, seed, horizon=steps, content=known.content,
                          module=known.module)  # fmt: skip
        run = Run(
            problem,
            schedule,
            validation=held_out,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            callbacks=callbacks,
            device=device,
            fast=fast,
            threads=threads,
            progress=progress,
        )
        self._train(run, train, known, out=out)
        return self

    def _train(
        self,
        run: Run,
        train: Interactions,
        given: GivenContent,
        before: Fitted | None = None,
        out: str | PathLike[str] | None = None,
    ) -> None:
        try:
            run.train()
        finally:
            if not run.out_of_step:
                with run.acting_together():
                    if out is not None and run.in_parts and isinstance(run.engine, Collective):
                        self._keep_shards(run, run.engine, train, out)
                    else:
                        self._keep(run, train, given, before, out)
            run.close()

    def _keep(
        self,
        run: Run,
        train: Interactions,
        given: GivenContent,
        before: Fitted | None,
        out: str | PathLike[str] | None,
    ) -> None:
        """Store the result of the run, unless it has no finite points; save that of an epoch."""
        trained, n = run.outcome(), train.n_users
        if before is not None:
            trained = trained.after(before.history)
        if all_finite(trained.points):
            users, items = trained.points[:n], trained.points[n:]
            encoders = given.encoders(trained.tables)
            found = (
                uncalibrated(run.problem)
                if before is None
                else Calibration(before.gamma, weight=before.neighbour_weight)
            )
            try:
                if before is None:
                    found = run.calibrated(trained.points)
            finally:  # if this is interrupted, the points are kept too
                known = self._described(run, trained, train, found)
                self._take(known._replace(users=users, items=items, encoders=encoders))
                if out is not None and trained.history.height:
                    run.written_once(partial(self.save, out), "the model")

    def _keep_shards(
        self, run: Run, engine: Collective, train: Interactions, out: str | PathLike[str]
    ) -> None:
        """Save the result of the run, of which this process has a part; then map it."""
        trained = run.outcome_here()
        if trained.history.height and finite_everywhere(engine, trained.points):
            found = run.calibrated(trained.points)
            known = self._described(run, trained, train, found)
            self._take(write_shards(out, engine, trained.points, known, self.options))

    def _described(
        self, run: Run, trained: Trained, train: Interactions, found: Calibration
    ) -> Fitted:
        """Return the fitted state without points."""
        problem, nothing = run.problem, np.empty((0, self.options.dim), np.float32)
        negatives = problem.n_own or problem.n_candidates
        effective = Effective(problem.triplet.known_temperature, negatives)
        near = self._near_items(train, run.threads) if found.weight > 0.0 else None
        return Fitted(nothing, nothing, trained.history, trained.best_epoch, train,
                      effective=effective, gamma=found.gamma, calibration=found.table,
                      neighbour_weight=found.weight, neighbours=near)  # fmt: skip

    def _near_items(self, train: Interactions, threads: int | None) -> NearItems | None:
        chosen = self.options.neighbours
        if chosen is None:
            return None
        return near_items(
            (train.indptr, train.items), train.n_items, chosen.nearest, threads=threads
        )

    def _take(self, fitted: Fitted) -> None:
        self._fitted, self._searched = fitted, None

    def partial_fit(
        self,
        new: Interactions,
        *,
        item_features: Features | Contents | None = None,
        user_features: Features | None = None,
        epochs: int = 8,
        seed: int = 0,
        threads: int | None = None,
        device: str = "cpu",
        fast: bool = False,
        progress: bool | None = None,
    ) -> Self:
        """Continue training with additional interactions, including those of new users and items.

        Training continues on the old and the new interactions together, from the current points: a
        new user starts at the mean of the known items they like, a new item at the mean of its
        users. It takes `epochs` passes, fewer than `fit`, and half the learning rate, because most
        points are already close to their final position. See docs/guides/new-users.md.

        Parameters
        ----------
        new : Interactions
            The new interactions, with ids of the same types. Known pairs have no effect.
        item_features, user_features : Features, optional
            Of the new items (users) of a hybrid; those of others replace what the model has. A
            model with a `Module` that was loaded needs the `Contents` of all its items again.
        epochs, seed, threads, device, fast, progress
            As in `fit`.

        Returns
        -------
        CML
            This model. Its `history` is continued.

        Raises
        ------
        NotFittedError
            The model has not been fitted.
        DataError, OptionError, MissingExtraError, DivergedError, KeyboardInterrupt
            As in `fit`; the model is unchanged or, after an interrupt, has the current points.
        """
        fitted = self._known()
        known, schedule, seed = fitted.interactions, Schedule(epochs), checked_seed(seed)
        train = known.union(checked_interactions("new", new))
        steps = -(-train.n_pairs // self.options.batch) * schedule.epochs
        options = self.options
        slower = replace(options.optimiser, learning_rate=options.optimiser.learning_rate / 2)
        given = {"users": user_features, "items": item_features}
        encoders = self._grown(known, train, given)
        of_all = GivenContent.of(encoders, resolve(device))
        problem = Problem(
            train,
            replace(options, optimiser=slower),
            seed,
            horizon=steps,
            content=of_all.content,
            module=of_all.module,
        )
        run = Run(
            problem,
            schedule,
            device=device,
            fast=fast,
            threads=threads,
            progress=progress,
            state=grown_state(problem, self.user_vectors, self.item_vectors, known, encoders),
        )
        self._train(run, train, of_all, before=fitted)
        return self

    def _grown(
        self, known: Interactions, data: Interactions, given: dict[str, Any]
    ) -> AnyEncoders | None:
        """Return the encoders on the axes of more data, with more features; None without any."""
        encoders = self._known().encoders
        for side, features in given.items():
            if features is None:
                continue
            name = f"{side[:-1]}_features"
            if encoders is None or side not in encoders.spaces:
                raise OptionError(
                    f"`{name}` was given, but the model was trained without features of {side}."
                )
            encoders.checked(name, features)
        return None if encoders is None else encoders.moved(self.options, known, data, given)

    # ---------------------------------------------------------------------------- fitted state

    def _known(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError(
                "The model has not been fitted; call fit(train) or CML.load(path)."
            )
        return self._fitted

    @property
    def _retrieval(self) -> Retrieval:
        """The search in the points, which keeps what it computes."""
        fitted = self._known()
        if self._searched is None or not self._searched.is_of(fitted):
            self._searched = Retrieval(fitted, self.options)
        return self._searched

    @property
    def interactions(self) -> Interactions:
        """The training interactions, with the validation part if a share was held out."""
        return self._known().interactions

    @property
    def user_vectors(self) -> Float32:
        """(N, d) points of the users, in the order of ``interactions.user_ids``.

        Those of users without training interactions are where they started, at random.
        """
        return self._known().users

    @property
    def item_vectors(self) -> Float32:
        """(M, d) points of the items, in the order of ``interactions.item_ids``.

        Those of items without training interactions are where they started, at random.
        """
        return self._known().items

    @property
    def placed_items(self) -> Bool:
        """Which items have a point, learned from interactions or content, bool (M,)."""
        return self._known().placed_items

    @property
    def placed_users(self) -> Bool:
        """Which users have a point, learned from interactions or content, bool (N,)."""
        return self._known().placed_users

    @property
    def weights(self) -> ItemWeights:
        """The weights of the items at every setting of the dial."""
        return self._retrieval.weights

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training interactions; see `Interactions.fingerprint`."""
        return self.interactions.fingerprint

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of the model by name, together with their k.

        ``validation``: those of the kept epoch, if there was a validation part. ``test``: those
        passed to `keep_evaluation`.
        """
        return self._known().metrics

    def card(self) -> str:
        """Return the model card, in Markdown: data, options, how it was trained, and its metrics.

        `save` writes it into the folder of the model.
        """
        return self._known().card(self.options)

    def keep_evaluation(self, evaluation: Evaluation) -> None:
        """Store the metrics of an evaluation on test data in the model, to be saved with it.

        They are discarded when the model is trained again.
        """
        found = an_instance("evaluation", evaluation, Evaluation).to_dict()
        kept: dict[str, Any] = {"k": evaluation.k, "n_users": evaluation.n_users}
        if evaluation.popularity is not None:
            kept["popularity"] = evaluation.popularity
        if evaluation.n_new_users:
            kept |= {name: found[name] for name in ("n_new_users", "n_folded_in")}
        kept |= found["metrics"]
        self._fitted = self._known()._replace(evaluation=kept)

    @property
    def projection(self) -> Projection:
        """The items in two dimensions, for plots: by PCA, or as computed by `project`."""
        self._fitted, projection = self._known().projected()
        return projection

    def project(self, method: str = "pca", *, seed: int = 0) -> Projection:
        """Project the items to two dimensions by a given method and keep the result."""
        made = project(self.item_vectors, method, seed=checked_seed(seed))
        self._fitted = self._known()._replace(projection=made)
        return made

    @property
    def history(self) -> pl.DataFrame:
        """The history of training, one row per epoch.

        ``loss`` is the mean triplet loss of a pair, ``spread_out`` and ``decorrelate`` the mean of
        a step, ``violated`` the share of pairs with a negative inside the margin, ``missed`` the
        number of negatives that could not be drawn, ``seconds`` the time spent on steps so far.
        Epochs 1, 2, 4, 8 and so on also have ``effective``, ``false_push`` and ``dimension``
        (`nearfar.training.diagnostics`), those of a hybrid also ``explained_items``,
        ``similar_push``, ``cache_age`` and others (`nearfar.training.content_diagnostics`), and
        evaluated epochs the metrics of the validation part.
        """
        return self._known().history

    @property
    def best_epoch(self) -> int:
        """The epoch whose points the model has."""
        return self._known().best_epoch

    def scorer(
        self, device: str = "cpu", *, popularity: float | None = None
    ) -> Points | DevicePoints:
        """Return a scorer of all items for a user, larger is closer; used by `nearfar.evaluate`.

        Parameters
        ----------
        popularity : float, optional
            As in `recommend`.
        device : str
            As in `recommend`. On a GPU the points are copied to the device, so use one scorer for
            many calls of `nearfar.search.neighbours.top_k`.
        """
        own = (self.interactions.indptr, self.interactions.items)
        return self._retrieval.for_users(self.user_vectors, own, device, self.dial(popularity))

    @property
    def neighbours(self) -> NearItems | None:
        """The neighbours of each item by co-occurrence; None if the score has no such term.

        See `nearfar.method.co_occurrence`.
        """
        return self._known().neighbours

    @property
    def neighbour_weight(self) -> float:
        """The factor lambda of the co-occurrence term in the score; 0 if there is none."""
        return self._known().neighbour_weight

    @property
    def gamma(self) -> float:
        """The factor of log f_j in the score at popularity 1; 0 without a prior."""
        return self._known().gamma

    @property
    def calibration(self) -> pl.DataFrame | None:
        """Accuracy and popularity at each gamma that was tried on the validation part.

        One row for each of 0, .01, ... to .15 or more, with ``popularity``, the setting of the dial
        that has this gamma, ``k``, and the other columns of `Front.frame`. None if gamma is 0 or
        was not found on a validation part, or the model was trained further.
        """
        return self._known().calibration

    def dial(self, popularity: float | None = None) -> float:
        """Return a setting of the popularity dial; for None that of the prior, 0 without one.

        Raises
        ------
        OptionError
            It is not a number from 0 to 1,000, or it is above 0 and gamma is 0.
        """
        if popularity is None:
            prior = self.options.prior
            return 0.0 if prior is None or self.gamma == 0.0 else prior.popularity
        setting = checked_setting(popularity)
        if self.gamma == 0.0 and setting > 0.0:
            raise OptionError(
                f"`popularity` is {popularity!r}, but the dial of this model has no effect:"
                f" {self._why_no_dial()}, or omit `popularity`."
            )
        return setting

    def _why_no_dial(self) -> str:
        """Return why gamma is 0, and the remedy."""
        prior = self.options.prior
        if prior is None:
            return "it has no popularity prior. Train it with prior=Prior()"
        if prior.gamma is not None:
            return "it has Prior(gamma=0). Train it with prior=Prior()"
        return (
            "gamma of its popularity prior was found to be 0. Train it with negatives that are"
            " drawn by popularity, such as Shared(0.8), and fewer than half of the items in a step"
            " (`negatives`)"
        )

    def item_weight(self, popularity: float | None = None) -> Float32 | None:
        """Return b_j of each item at a setting of the dial, float32 (M,); None if all are 0."""
        return self._retrieval.weights.at(self.dial(popularity))

    # ------------------------------------------------------------------ new users and items

    def fold_in(self, liked: Iterable[Any], *, steps: int = STEPS, seed: int = 0) -> Float32:
        """Return a point for a new user, from the items they like.

        The training objective, with negatives drawn as in training, is minimised over this point;
        all other points are fixed. It takes milliseconds and does not modify the model.

        Parameters
        ----------
        liked : ids of items
            At least one; a repeated id counts once.
        steps : int
            Number of steps; each uses all of `liked`.
        seed : int
            Seed of the random numbers; the same seed gives the same bits.

        Returns
        -------
        float32 array of shape (d,)

        Raises
        ------
        EmptyDataError
            `liked` is empty.
        UnknownIdError
            An item that was not in the training interactions.
        """
        steps, seed = whole("steps", steps, 1, MOST_STEPS), checked_seed(seed)
        search = self._retrieval
        rows = distinct_rows(search.item_axis("`liked`"), liked, "liked")
        return search.folding.user(rows, seed=seed, steps=steps)

    def fold_in_item(
        self, liked_by: Iterable[Any], *, steps: int = STEPS, seed: int = 0
    ) -> Float32:
        """Return a point for a new item, from the users who like it.

        As `fold_in`; the item is also pushed away from users of other pairs, as often as the
        sampler would draw it for them.
        """
        steps, seed = whole("steps", steps, 1, MOST_STEPS), checked_seed(seed)
        search = self._retrieval
        rows = distinct_rows(search.user_axis("`liked_by`"), liked_by, "liked_by")
        return search.folding.item(rows, seed=seed, steps=steps)

    def fold_in_scorer(
        self,
        given: Interactions,
        users: Int32,
        *,
        popularity: float | None = None,
        device: str = "cpu",
    ) -> Points | DevicePoints:
        """Return a scorer of all items for new users, by fold-in; used by `nearfar.evaluate`.

        Parameters
        ----------
        given : Interactions
            The items that the users like, on the items' axis of the model.
        users : int array of shape (n,)
            Rows of `given`, each with at least one item that has training interactions.
        popularity, device
            As in `recommend`.

        Returns
        -------
        Scorer
            Its row a is the user ``users[a]``, with the point of ``fold_in`` of their items.
        """
        search, trained = self._retrieval, self.interactions.item_counts > 0
        given_items = (given.positives(int(user)) for user in users)
        liked = [items[trained[items]] for items in given_items]
        points = np.stack([search.folding.user(items, seed=0) for items in liked])
        own = np.cumsum([0, *map(len, liked)], dtype=np.int64), np.concatenate(liked)
        return search.for_users(points, own, device, self.dial(popularity))

    def with_users(self, user_ids: Ids) -> CML:
        """Return the same model on an axis with more users, who have no training interactions.

        It is for the evaluation of new users from another source: `nearfar.evaluate` with
        ``new_users="fold_in"`` needs them on the axis of the model.

        Parameters
        ----------
        user_ids : Ids
            The users of the model and others, as by ``interactions.user_ids.union(others)``.

        Returns
        -------
        CML
            The points of the additional users are 0.

        Raises
        ------
        OptionError
            `user_ids` is something else, or a user of the model is missing.
        """
        fitted = self._known()
        an_instance("user_ids", user_ids, Ids, "Pass `interactions.user_ids.union(others)`.")
        known = fitted.interactions
        places = user_ids.places(known.user_ids)
        if np.any(places < 0):
            raise OptionError(
                f"`user_ids` lacks {np.count_nonzero(places < 0):,} of the {known.n_users:,} users"
                " of the model; pass `interactions.user_ids.union(others)`."
            )
        points = np.zeros((len(user_ids), fitted.users.shape[1]), np.float32)
        points[places] = fitted.users
        made = CML(self.options)
        wider = known.aligned(user_ids, known.item_ids)
        encoders = self._grown(known, wider, {})
        made._take(fitted._replace(users=points, interactions=wider, encoders=encoders))
        made._retrieval.folding.compare_as(self._retrieval.folding)
        return made

    def features_of(self, side: str) -> dict[str, str]:
        """Return the fields that a hybrid was trained with and their kinds, of "items" or "users".

        It is empty if the model has learned from no features of that side.
        """
        one_of("side", side, SIDES)
        encoders = self._known().encoders
        if encoders is None or side not in encoders.spaces:
            return {}
        return {field.name: field.kind for field in encoders.spaces[side].fields}

    def add_items(self, features: Features | Contents) -> Self:
        """Add items that nobody has used yet, by their content; no point is learned anew.

        Their points are g(x), on the same sphere as all others, so from now on they are
        recommended, found by `similar_items`, saved and exported like other items. `partial_fit`
        learns from their interactions when there are some.

        Parameters
        ----------
        features : Features, or Contents if a `Module` encodes the items
            Of items that the model does not have. Those without a known feature are refused.

        Returns
        -------
        CML
            This model. Its items are in the order of their ids, so indexes made before are of
            another model.

        Raises
        ------
        OptionError
            The model was trained without features of items.
        DataError
            The model has an item already, or an item has no feature that the model knows.
        """
        fitted, encoders = self._known(), self._item_encoders()
        given: Any = encoders.checked("features", features)
        data = fitted.interactions
        known = np.flatnonzero(data.item_ids.places(features.ids) >= 0)
        if len(known):
            named = first_few(features.ids.take(known).to_list())
            raise DataError(
                f"the model has {len(known):,} of the {len(features):,} items already: {named}."
                " Add others only; `partial_fit` learns from new interactions."
            )
        _, missing = encoders.encode("items", given)
        if missing.any():
            named = first_few(features.ids.take(np.flatnonzero(missing)).to_list())
            raise DataError(
                f"{np.count_nonzero(missing):,} of the {len(features):,} items have no feature that"
                f" the model knows: {named}. Leave them out."
            )
        wider = data.aligned(data.user_ids, data.item_ids.union(features.ids))
        grown = encoders.moved(self.options, data, wider, {"items": features})
        items = np.empty((wider.n_items, self.options.dim), np.float32)
        new = wider.item_ids.places(features.ids)
        items[wider.item_ids.places(data.item_ids)] = fitted.items
        items[new] = normalise(grown.encoded(wider.n_users + new.astype(np.int64)))
        near = None if fitted.neighbours is None else self._near_items(wider, None)
        self._take(
            fitted._replace(
                items=items, interactions=wider, encoders=grown, neighbours=near, projection=None
            )
        )
        return self

    def _item_encoders(self) -> AnyEncoders:
        """Return the encoders; refuse a model that learned nothing from features of items."""
        encoders = self._known().encoders
        if encoders is None or "items" not in encoders.spaces:
            raise OptionError(
                "The model was trained without features of items. Train it with"
                " CML(items=Hybrid()).fit(train, item_features=...)."
            )
        return encoders

    # ---------------------------------------------------------------------- recommendations

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        liked: Iterable[Any] | None = None,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        among: Features | Contents | Iterable[Any] | None = None,
        unknown: str = "error",
        popularity: float | None = None,
        diversity: float = 0.0,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Return the items nearest to each user; see `recommend_all` for all users.

        Items without training interactions are never recommended, because their points are random,
        unless they have content: a hybrid ranks those with and without interactions on one scale.

        Parameters
        ----------
        users : id, or list, array or Series of ids
            One user or many.
        k : int
            Number of items. The list is shorter, or empty, if fewer items are left after filtering;
            time and memory do not grow with a `k` above the number of items.
        liked : ids of items, optional
            Instead of `users`: the items that a new user likes; see `fold_in`.
        exclude_seen : bool
            Leave out the items of the user in the training interactions, or those in `liked`.
        allow, deny : ids of items, optional
            Recommend only these; never recommend these. Ids that the model does not know are
            ignored, with a warning that counts them.
        among : ids of items, or Features, optional
            Recommend only these, and refuse ids that the model does not know. Features of items
            that it does not have are encoded for this request (`add_items` keeps them).
        unknown : {"error", "skip"}
            What to do with users (or items in `liked`) that the model does not know or that have no
            training interactions: refuse them, or leave them out with a warning that counts them.
        popularity : float, optional
            The popularity dial of a model with a prior: 0 orders by distance alone, which is the
            least popular list, 1 as the prior was calibrated, and more is more popular. If None,
            the setting of the model's `Prior`, by default 1. See `nearfar.method.prior`.
        diversity : float
            How much the items of a list shall differ, 0 to 1. With x above 0, each place gets the
            item with the largest (1 - x) score - x max sim, the largest similarity to an item above
            it, among the 300 best or, for long lists, the 2 k best. The first place gets the best.
            Scores are shown as they are, so they need not fall. See `nearfar.search.diversity`.
        threads : int, optional
            Number of threads; all available cores if None.
        device : str
            The device for ranking, as in `fit`, but not "reference". Scores of different devices
            can differ in the last bits, and nearly equal scores in their order.
        index : nearfar.ItemIndex, optional
            Search with this approximate index of the model; exact search if None. Refused for a
            model with neighbours, as is a GPU.

        Returns
        -------
        DataFrame
            ``rank`` (from 1), ``item_id`` and ``score`` = 1 - D^2 / 2, the cosine on the sphere,
            plus the item's weight if the model has a prior, plus the co-occurrence term if it has
            neighbours; for many users also ``user_id``, first. Ties are broken by the smaller item
            id.

        Raises
        ------
        UnknownIdError
            A user or item that was not in the training interactions; or a value in `allow` or
            `deny` that cannot be an id, or an item's id in another type.
        OptionError
            `k` is not a whole number of at least 1, `device` is not available, neither or both of
            `users` and `liked` are given, `diversity` is not from 0 to 1, `popularity` is given but
            the model has no prior, or `index` belongs to another model or is used with another
            `device` than the CPU; or the model has neighbours and `index` or another `device` than
            the CPU is given.
        DataError
            `liked`, `allow` or `deny` is a single id.
        EmptyDataError
            `liked` is empty, or all of its ids were skipped.
        MissingExtraError
            `device` needs PyTorch.

        Warns
        -----
        NearfarWarning
            Ids were ignored or skipped.
        """
        if liked is not None and users is not None:
            raise OptionError("`users` and `liked` were both given; pass only one of them.")
        if liked is None and users is None:
            raise OptionError(
                "`recommend` needs `users` (an id or a list of ids) or `liked` (ids of items); for"
                " every user of the model call recommend_all()."
            )
        k, exclude_seen = whole("k", k), switch("exclude_seen", exclude_seen)
        if isinstance(among, Features | Contents):
            return self._with_items(among).recommend(
                users, k, liked=liked, exclude_seen=exclude_seen, allow=allow, deny=deny,
                among=among.ids.values, unknown=unknown, popularity=popularity, diversity=diversity,
                threads=threads, device=device, index=index,
            )  # fmt: skip
        search, setting = self._retrieval, self.dial(popularity)
        apart = checked_diversity(diversity)
        mask = search.mask(allow, deny, among)
        asked = (
            search.known_users(users, unknown) if liked is None else search.new_user(liked, unknown)
        )
        scorer = search.items_for(asked, device, index, threads, setting)
        return search.recommended(
            asked, scorer, k, exclude_seen=exclude_seen, mask=mask, threads=threads, diversity=apart
        )

    def _with_items(self, features: Features | Contents) -> CML:
        """Return the model with the items of `features` that it does not have."""
        self._item_encoders().checked("among", features)
        new = np.flatnonzero(self.interactions.item_ids.places(features.ids) < 0)
        if not len(new):
            return self
        return copy(self).add_items(features.of(features.ids.take(new)))

    def recommend_all(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        popularity: float | None = None,
        diversity: float = 0.0,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Return the items nearest to every user of the model.

        All lists are in memory at the same time; for millions of users use
        `nearfar.model.batch.recommend_to`, which writes them to a folder part by part. Users
        without training interactions are left out, with a warning that counts them.

        Parameters
        ----------
        k, exclude_seen, allow, deny, popularity, diversity, threads, device, index
            As in `recommend`.

        Returns
        -------
        DataFrame
            ``user_id``, in the order of ``interactions.user_ids``, ``rank``, ``item_id`` and
            ``score``, as `recommend`.
        """
        k, exclude_seen = whole("k", k), switch("exclude_seen", exclude_seen)
        search, setting = self._retrieval, self.dial(popularity)
        apart = checked_diversity(diversity)
        mask, asked = search.mask(allow, deny), search.all_users()
        scorer = search.items_for(asked, device, index, threads, setting)
        return search.recommended(
            asked, scorer, k, exclude_seen=exclude_seen, mask=mask, threads=threads, diversity=apart
        )

    def explain(
        self,
        user: Any = None,
        item: Any = None,
        *,
        liked: Iterable[Any] | None = None,
        k: int = 3,
        popularity: float | None = None,
    ) -> Explanation:
        """Return why a user gets an item: their items nearest to it, and the parts of its score.

        Parameters
        ----------
        user : id
        item : id
            Any item of the model that has a point, whether it is recommended or not.
        liked : ids of items, optional
            Instead of `user`: the items that a new user likes; see `fold_in`.
        k : int
            Number of the user's items to list.
        popularity : float, optional
            As in `recommend`.

        Returns
        -------
        Explanation
            Its ``parts`` add up to its ``score``, which is that of `recommend`; see
            `nearfar.model.explanation`.

        Raises
        ------
        UnknownIdError
            A user or item that was not in the training interactions.
        OptionError
            Neither or both of `user` and `liked` are given, or as in `recommend`.
        DataError
            `user` or `item` is not a single id.

        Examples
        --------
        >>> import nearfar as nf
        >>> liked = [(u, i) for u in range(8) for i in range(8) if (u + i) % 2 == 0 and u != i]
        >>> model = nf.CML(dim=3, batch=8, optimiser=nf.Adam(0.03))
        >>> model = model.fit(nf.Interactions.from_pairs(liked), epochs=30)
        >>> why = model.explain(0, 0)  # user 0 has 2, 4 and 6
        >>> sorted(why.nearest["item_id"])
        [2, 4, 6]
        >>> abs(sum(why.parts.values()) - why.score) < 1e-6
        True
        """
        search, setting = self._retrieval, self.dial(popularity)
        return explain(search, user, item, liked, whole("k", k), setting)

    def user_rows(self, users: Iterable[Any], unknown: str = "error") -> tuple[Int32, list[Any]]:
        """Return the rows of users with training interactions, and the ids of the others.

        Parameters
        ----------
        users : ids
        unknown : {"error", "skip"}
            As in `recommend`, but without a warning.

        Raises
        ------
        UnknownIdError, OptionError
            As in `recommend`.
        DataError
            `users` is not a list.
        """
        asked = several("users", users)
        _, rows, skipped = known_rows(self._retrieval.user_axis("recommend"), asked, unknown)
        return rows, skipped

    def similar_items(
        self,
        items: Any = None,
        k: int = 10,
        *,
        features: Features | Contents | None = None,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        popularity: float = 0.0,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Return the items nearest to each item by their points, without the item itself.

        Items without training interactions are in no list: their points are random.

        Parameters
        ----------
        items : id, or list, array or Series of ids
        k : int
        features : Features, optional
            Instead of `items`: content of items that need not be the model's, of which each is
            compared as g(x).
        allow, deny : ids of items, optional
            List only these; never list these. As in `recommend`.
        popularity : float
            As in `recommend`; by default distance alone.
        threads : int, optional
        device : str
        index : nearfar.ItemIndex, optional
            As in `recommend`.

        Returns
        -------
        DataFrame
            As `recommend`; for many items also ``query_id``, the item of the list.

        Raises
        ------
        UnknownIdError
            An item that was not in the training interactions; `allow` and `deny` as in `recommend`.
        """
        points, search = self.item_vectors, self._retrieval
        setting = self.dial(checked_setting(popularity))
        if (items is None) == (features is None):
            raise OptionError("`similar_items` needs either `items` or `features`.")
        mask = search.mask(allow, deny)
        if features is not None:
            encoders = self._item_encoders()
            given: Any = encoders.checked("features", features)
            queries, missing = encoders.encode("items", given)
            scorer = search.items_near(queries, device, index, threads, setting)
            return search.similar_to(features.ids, queries, missing, k, threads, scorer, mask)
        scorer = search.items_near(points, device, index, threads, setting)
        return search.similar(items, k, points, search.item_axis("`items`"), threads, scorer, mask)

    def similar_users(
        self, users: Any, k: int = 10, *, threads: int | None = None, device: str = "cpu"
    ) -> pl.DataFrame:
        """Return the users nearest to each user; see `similar_items`."""
        points, search = self.user_vectors, self._retrieval
        scorer = search.points(points, points, device)
        return search.similar(users, k, points, search.user_axis("`users`"), threads, scorer)

    # ------------------------------------------------------------------------------ on disk

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to the folder `path`, atomically: safetensors, Parquet, JSON, Markdown.

        The folder also contains the training interactions, which `recommend` leaves out of its
        lists, the projection of the items, the metrics of the model, and a model card.
        """
        path = local_path(path)
        self._fitted, _ = self._known().projected()
        write_model(path, self._fitted, self.options)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        encoder: Callable[[int], Any] | None = None,
        mmap: bool = False,
    ) -> CML:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        encoder : callable, optional
            The `build` of a model whose items a `Module` encodes. Without it the model recommends
            as it is, and refuses to encode new contents.
        mmap : bool
            Map the points into memory, read-only, instead of reading them, so that processes that
            serve the same model share them.

        Raises
        ------
        StoreError
            The folder is missing, damaged or inconsistent, or contains something else.
        OptionError
            `encoder` is not callable, or the model has no `Module`.
        """
        build = None if encoder is None else a_callable("encoder", encoder)
        options, known = read_model(path, mmap=switch("mmap", mmap), build=build)
        model = cls(options)
        model._take(known)
        return model


def _checked_options(options: Any) -> Options:
    remedy = "Pass a preset, such as nearfar.presets.paper_2019(), or single options by name."
    found: Options = an_instance("options", options, Options, remedy)
    return found


def _divided(
    train: Interactions, validation: Any, seed: int
) -> tuple[Interactions, Interactions | None]:
    """Return the part to learn from, and the validation part if there is one."""
    if validation is None or isinstance(validation, Interactions):
        return train, validation
    other = "It can also be Interactions on the axes of `train`, or None."
    return split.ratio(train, test=share("validation", validation, other), seed=seed)

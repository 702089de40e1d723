"""Collaborative metric learning: `CML`, the model a user works with.

A model is its options and two tables of points, users and items, in one space: what a user likes is
near, the rest is far, and recommending is looking around a point.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Never, Self

import numpy as np
import polars as pl

from nearfar.data import split
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.errors import DataError, NotFittedError, OptionError
from nearfar.evaluation.result import Evaluation
from nearfar.method.geometry import Geometry
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import Averaging, Optimiser
from nearfar.method.options import Options
from nearfar.method.sampling import Sampler
from nearfar.model.asked import Asked, distinct_rows, rows_of
from nearfar.model.card import Effective
from nearfar.model.fitted import Fitted, all_finite, read_model, write_model
from nearfar.model.item_map import Projection, project
from nearfar.model.suggestions import unknown_option
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.runtime.checks import check_count
from nearfar.runtime.devices import resolve_ranking
from nearfar.search.neighbours import Index, Points, Scorer, TopK, top_k
from nearfar.search.scoring import closeness, scorer_of
from nearfar.training.fold_in import STEPS, Folding
from nearfar.training.run import Callback, Run
from nearfar.training.schedule import Schedule
from nearfar.training.warm_start import grown_state

if TYPE_CHECKING:
    from nearfar.search.device_search import DevicePoints

OPTION_NAMES = tuple(inspect.signature(Options).parameters)


class Unset(Enum):
    """What a hyper-parameter is that was not given; None is a value of some."""

    UNSET = "not given"

    def __repr__(self) -> str:
        """Show in signatures that it is not given."""
        return self.name


UNSET: Final = Unset.UNSET


class CML:
    """Collaborative metric learning.

    Parameters
    ----------
    options : Options, optional
        All hyper-parameters at once, those of a preset for example; the defaults if left out.
    dim, geometry, sampler, negatives, batch, triplet, spread_out, decorrelate, optimiser, averaging
        Single hyper-parameters, which replace those of `options`; see `Options`. One that is not
        given stays as it is in `options`.

    Raises
    ------
    OptionError
        For a name that is not an option, or a value out of its range.

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
        **unknown: Never,
    ) -> None:
        start = Options() if options is None else options
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
        }
        given: dict[str, Any] = {name: one for name, one in named.items() if one is not UNSET}
        self.options = replace(start, **given)
        self._fitted: Fitted | None = None
        self._scorers: list[tuple[Float32, Points]] = []
        self._folding: Folding | None = None

    def __repr__(self) -> str:
        """Show the options that differ from the defaults, and `negatives` wherever it was given."""
        default, options = vars(Options()), self.options
        changed = {name: value for name, value in vars(options).items() if value != default[name]}
        if options.n_negatives != Options().n_negatives:
            changed["negatives"] = options.n_negatives
        shown = (f"{name}={changed[name]!r}" for name in OPTION_NAMES if name in changed)
        return f"CML({', '.join(shown)})"

    # ------------------------------------------------------------------------------- training

    def fit(
        self,
        train: Interactions,
        *,
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
    ) -> Self:
        """Learn the points from interactions.

        Parameters
        ----------
        train : Interactions
        epochs : int
            Passes over the training pairs.
        validation : float, Interactions or None
            A share of each user's interactions to hold out, or a part that was cut off before. It
            is evaluated every `every` epochs, and the points of the epoch that is best by `metric`
            at `k` are kept. Without it, the last epoch's are.
        patience : int, optional
            Stop after this many evaluations in a row without a new best.
        checkpoint : path, optional
            A folder in which the run is saved every `checkpoint_seconds` and at its end. If it
            holds this very run, training goes on from there, to the same bits.
        callbacks : sequence of callables
            Each is called with a `nearfar.training.run.Epoch` after every epoch; returning True
            stops.
        seed : int
            Names every random number of the run.
        threads : int, optional
            Threads to use. None takes the available cores, as far as a step has work for them. The
            result does not depend on it.
        device : str
            "cpu"; "cuda", "cuda:1", ...; "auto", a GPU where there is one; "reference": plain
            loops in float64, slow, for checking; or "torch:" and any device of PyTorch. All but
            "cpu" and "reference" need the extra ``nearfar[torch]``.
        fast : bool
            On a GPU: matrix products on tensor cores in TF32 (10 bits of mantissa instead of 23).
            Faster with `Shared` and `TwoStage`; results differ in the third digit of a product.
            Refused on the processor.
        progress : bool, optional
            Show a progress bar; where the error stream is a terminal if None.

        Returns
        -------
        CML
            This model.

        Raises
        ------
        OptionError
            An option is out of its range, or `device` is not there.
        MissingExtraError
            `device` needs PyTorch.
        DivergedError
            The loss is no longer a number. The best points so far, if any, are kept.
        KeyboardInterrupt
            As it came; the model keeps the best points so far (or the current ones) and works.

        Warns
        -----
        NearfarWarning
            The temperature given for shared negatives is far from what the number of items asks
            for; most places for a negative stayed empty; or, with a validation part, NDCG has
            fallen to less than 0.7 of its best, or never came above that of recommending what is
            popular. It says what is the matter and what to do.
        """
        if not isinstance(train, Interactions):
            raise DataError(
                f"`train` must be nearfar.Interactions; got {type(train).__name__}. Make them with"
                f" Interactions.from_pairs, from_frame, from_csr or read."
            )
        schedule = Schedule(epochs, every, metric, k, patience)
        learned, held_out = train, validation
        if isinstance(validation, float | int):
            learned, held_out = split.ratio(train, test=float(validation), seed=seed)
        steps = -(-max(learned.n_pairs, 1) // self.options.batch) * epochs
        problem = Problem(learned, self.options, seed, horizon=steps)
        run = Run(
            problem,
            schedule,
            validation=held_out if isinstance(held_out, Interactions) else None,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            callbacks=callbacks,
            device=device,
            fast=fast,
            threads=threads,
            progress=progress,
        )
        try:
            run.train()
        finally:
            self._keep(run, train)
            run.close()
        return self

    def _keep(self, run: Run, train: Interactions, before: Fitted | None = None) -> None:
        """Take over what the run has come to, unless all of it is broken."""
        trained, n = run.outcome(), train.n_users
        if before is not None:
            trained = trained.after(before.history)
        if all_finite(trained.points):
            users, items = trained.points[:n], trained.points[n:]
            problem = run.problem
            negatives = problem.n_own or problem.n_candidates
            effective = Effective(problem.triplet.known_temperature, negatives)
            history, best = trained.history, trained.best_epoch
            self._take(Fitted(users, items, history, best, train, effective=effective))

    def _take(self, fitted: Fitted) -> None:
        self._fitted, self._folding, self._scorers = fitted, None, []

    def partial_fit(
        self,
        new: Interactions,
        *,
        epochs: int = 8,
        seed: int = 0,
        threads: int | None = None,
        device: str = "cpu",
        fast: bool = False,
        progress: bool | None = None,
    ) -> Self:
        """Learn from new interactions too, those of new users and items among them.

        Training goes on, on the old and the new interactions together, from the points that are
        there: a new user begins at the mean of the known items they like, a new item at the mean
        of its users. It costs `epochs` passes instead of as many as `fit` needs, at half the
        learning rate: most points are nearly where they belong. See docs/guides/new-users.md.

        Parameters
        ----------
        new : Interactions
            With ids of the same types. Pairs that are known already do no harm.
        epochs, seed, threads, device, fast, progress
            As in `fit`.

        Returns
        -------
        CML
            This model. Its `history` goes on where it was.

        Raises
        ------
        NotFittedError
            There is nothing to go on from.
        DataError, OptionError, MissingExtraError, DivergedError, KeyboardInterrupt
            As in `fit`; the model is as it was, or, after an interrupt, has the points so far.
        """
        fitted = self._known()
        known = fitted.interactions
        train = known.union(new)
        schedule, steps = Schedule(epochs), -(-train.n_pairs // self.options.batch) * epochs
        options = self.options
        slower = replace(options.optimiser, learning_rate=options.optimiser.learning_rate / 2)
        problem = Problem(train, replace(options, optimiser=slower), seed, horizon=steps)
        run = Run(
            problem,
            schedule,
            device=device,
            fast=fast,
            threads=threads,
            progress=progress,
            state=grown_state(problem, self.user_vectors, self.item_vectors, known),
        )
        try:
            run.train()
        finally:
            self._keep(run, train, before=fitted)
            run.close()
        return self

    # ---------------------------------------------------------------------------- what it knows

    def _known(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError(
                "this model has not been fitted; call fit(train) or CML.load(path)."
            )
        return self._fitted

    @property
    def interactions(self) -> Interactions:
        """The training interactions, with the validation part if a share was held out."""
        return self._known().interactions

    @property
    def user_vectors(self) -> Float32:
        """(N, d) points of the users, in the order of ``interactions.user_ids``."""
        return self._known().users

    @property
    def item_vectors(self) -> Float32:
        """(M, d) points of the items, in the order of ``interactions.item_ids``."""
        return self._known().items

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training interactions; see `Interactions.fingerprint`."""
        return self.interactions.fingerprint

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """What is known of how good the model is: figures by name, k among them.

        ``validation``: those of the epoch that was kept, if there was a validation part. ``test``:
        those that `keep_evaluation` was given.
        """
        return self._known().metrics

    def keep_evaluation(self, evaluation: Evaluation) -> None:
        """Let the figures of an evaluation on test data go with the model, when it is saved.

        They are forgotten when the model learns anew.
        """
        figures = evaluation.to_dict()
        kept = {"k": evaluation.k, "n_users": evaluation.n_users, **figures["metrics"]}
        self._fitted = self._known()._replace(evaluation=kept)

    @property
    def projection(self) -> Projection:
        """The items on a plane, for people to look at: by PCA, or as `project` made it."""
        self._fitted, projection = self._known().projected()
        return projection

    def project(self, method: str = "pca", *, seed: int = 0) -> Projection:
        """Put the items on a plane by another method, which is kept; see `item_map`."""
        made = project(self.item_vectors, method, seed=seed)
        self._fitted = self._known()._replace(projection=made)
        return made

    @property
    def history(self) -> pl.DataFrame:
        """One row an epoch.

        ``loss`` is the mean triplet loss of a pair, ``spread_out`` and ``decorrelate`` the mean of
        a step, ``violated`` the share of pairs with a negative inside the margin, ``missed`` the
        places for a negative that stayed empty, ``seconds`` the time spent on steps so far. After
        epochs 1, 2, 4, 8 and so on there are also ``effective``, ``false_push`` and ``dimension``
        (`nearfar.training.diagnostics`); and the metrics of the validation part, where it was
        evaluated.
        """
        return self._known().history

    @property
    def best_epoch(self) -> int:
        """The epoch whose points the model holds."""
        return self._known().best_epoch

    def scorer(self, device: str = "cpu") -> Points | DevicePoints:
        """Score every item for a user, larger is closer; what `nearfar.evaluate` asks for.

        Parameters
        ----------
        device : str
            As in `recommend`. On a GPU the points are copied there; for many calls of
            `nearfar.search.neighbours.top_k` make one scorer.
        """
        return self._points(self.user_vectors, self.item_vectors, device)

    def _points(self, queries: Float32, targets: Float32, device: str) -> Points | DevicePoints:
        name = resolve_ranking(device)
        points = self._scorer_of(targets).with_queries(queries)
        if name == "cpu":
            return points
        from nearfar.search.device_search import DevicePoints

        return DevicePoints(points.queries, points.targets, points.offset, device=name)

    def _scorer_of(self, targets: Float32) -> Points:
        """Score a table of the model; what has to be computed of it is computed once."""
        for table, points in self._scorers:
            if table is targets:  # `points.targets` is not, if the table is mapped from a file
                return points
        made = scorer_of(targets, targets, self.options.geometry)
        self._scorers.append((targets, made))
        return made

    def _items_near(
        self, queries: Float32, device: str, index: Index | None, threads: int | None
    ) -> Scorer:
        """Score the items for queries: all of them, or those that an index finds."""
        if index is None:
            return self._points(queries, self.item_vectors, device)
        if resolve_ranking(device) != "cpu":
            raise OptionError(f"`index` searches on the processor; got device={device!r}.")
        index.check(self.item_vectors)
        return index.scorer(queries, threads=threads)

    # -------------------------------------------------------------------------- newcomers

    def fold_in(self, liked: Iterable[Any], *, steps: int = STEPS, seed: int = 0) -> Float32:
        """Give a user who was not there in training a point, from the items they like.

        The training objective, with the negatives that training draws, is minimised over that one
        point; all others stay. It takes milliseconds, and changes nothing in the model.

        Parameters
        ----------
        liked : ids of items
            At least one; one that is there several times counts once.
        steps : int
            How many; each takes all of `liked`.
        seed : int
            Names the random numbers: the same gives the same bits.

        Returns
        -------
        float32 array of shape (d,)

        Raises
        ------
        EmptyDataError
            `liked` names no item.
        UnknownIdError
            An item that was not in the training interactions.
        """
        rows = distinct_rows(self.interactions.item_ids, liked, "liked")
        return self._newcomers().user(rows, seed=seed, steps=_checked_steps(steps))

    def fold_in_item(
        self, liked_by: Iterable[Any], *, steps: int = STEPS, seed: int = 0
    ) -> Float32:
        """Give an item that was not there in training a point, from the users who like it.

        As `fold_in`; the item is also pushed from users of other pairs, as often as the sampler
        would draw it for them.
        """
        rows = distinct_rows(self.interactions.user_ids, liked_by, "liked_by")
        return self._newcomers().item(rows, seed=seed, steps=_checked_steps(steps))

    def _newcomers(self) -> Folding:
        if self._folding is None:
            users, items = self.user_vectors, self.item_vectors
            self._folding = Folding(users, items, self.interactions, self.options)
        return self._folding

    # ---------------------------------------------------------------------------- what it gives

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        liked: Iterable[Any] | None = None,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Return the items nearest to each user; see `recommend_all` for all users.

        Parameters
        ----------
        users : id, or list, array or Series of ids
            One user or many. (A tuple is one id.)
        k : int
            How many items. Where fewer are left the list is shorter; it is empty for a user with
            nothing left.
        liked : ids of items, optional
            Instead of `users`: what one user likes who was not there in training; see `fold_in`.
        exclude_seen : bool
            Leave out what the user had in the training interactions, or what is in `liked`.
        allow, deny : ids of items, optional
            Recommend only these; never recommend these.
        threads : int, optional
            Every available core if None.
        device : str
            Where to rank, as in `fit`; but not "reference". Scores of another device may differ in
            the last bits, and near ties in their order.
        index : nearfar.ItemIndex, optional
            Look for the items with this index of the model, which misses some; exactly if None.

        Returns
        -------
        DataFrame
            ``rank`` (from 1), ``item_id`` and ``score`` = 1 - D^2 / 2, the cosine on the sphere;
            for many users also ``user_id``, first. Equal scores are ordered by item id.

        Raises
        ------
        UnknownIdError
            A user or item that was not in the training interactions.
        OptionError
            `k` is less than 1, `device` is not there, neither or both of `users` and `liked` are
            given, or `index` is of another model or goes with a `device` other than the processor.
        EmptyDataError
            `liked` names no item.
        MissingExtraError
            `device` needs PyTorch.
        """
        if liked is not None and users is not None:
            raise OptionError("`users` and `liked` were both given; give one of them.")
        if liked is None and users is None:
            raise OptionError(
                "`recommend` needs `users` (an id or a list of ids) or `liked` (ids of items); for"
                " every user of the model call recommend_all()."
            )
        asked = self._users(users) if liked is None else self._somebody(liked)
        scorer = self._items_near(asked.queries, device, index, threads)
        mask = self._mask(allow, deny)
        return self._lists(asked, scorer, k, exclude_seen=exclude_seen, mask=mask, threads=threads)

    def recommend_all(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Return the items nearest to every user of the model.

        All lists are in memory at once: `nearfar.model.batch.recommend_to` writes those of millions
        of users to a folder, part by part.

        Parameters
        ----------
        k, exclude_seen, allow, deny, threads, device, index
            As in `recommend`.

        Returns
        -------
        DataFrame
            ``user_id``, in the order of ``interactions.user_ids``, ``rank``, ``item_id`` and
            ``score``, as `recommend`.
        """
        asked = self._users(None)
        scorer = self._items_near(asked.queries, device, index, threads)
        mask = self._mask(allow, deny)
        return self._lists(asked, scorer, k, exclude_seen=exclude_seen, mask=mask, threads=threads)

    def _users(self, users: Any) -> Asked:
        """Return what the model knows of users, or of all of them if None."""
        data = self.interactions
        if users is None:
            one, rows = False, np.arange(data.n_users, dtype=np.int32)
        else:
            one, rows = rows_of(data.user_ids, users)
        return Asked(one, rows, self.user_vectors, (data.indptr, data.items))

    def _somebody(self, liked: Iterable[Any]) -> Asked:
        """Fold a user in who was not there in training."""
        own = distinct_rows(self.interactions.item_ids, liked, "liked")
        point = self._newcomers().user(own, seed=0)[None]
        return Asked(True, np.zeros(1, np.int32), point, (np.array([0, len(own)], np.int64), own))

    def _lists(
        self,
        asked: Asked,
        scorer: Scorer,
        k: int,
        *,
        exclude_seen: bool,
        mask: Bool | None,
        threads: int | None,
    ) -> pl.DataFrame:
        exclude, ids = asked.seen if exclude_seen else None, self.interactions
        found = top_k(scorer, asked.rows, k, exclude=exclude, allow=mask, threads=threads)
        one, rows, queries, _ = asked
        return self._frame(found, one, rows, queries, ids.user_ids, ids.item_ids)

    def similar_items(
        self,
        items: Any,
        k: int = 10,
        *,
        threads: int | None = None,
        device: str = "cpu",
        index: Index | None = None,
    ) -> pl.DataFrame:
        """Give each item the items nearest to it, itself left out.

        Parameters
        ----------
        items : id, or list, array or Series of ids
        k : int
        threads : int, optional
        device : str
        index : nearfar.ItemIndex, optional
            As in `recommend`.

        Returns
        -------
        DataFrame
            As `recommend`, with the asked item as ``query_id`` where many are asked for.
        """
        points, ids = self.item_vectors, self.interactions.item_ids
        scorer = self._items_near(points, device, index, threads)
        return self._similar(items, k, points, ids, threads, scorer)

    def similar_users(
        self, users: Any, k: int = 10, *, threads: int | None = None, device: str = "cpu"
    ) -> pl.DataFrame:
        """Give each user the users nearest to them; see `similar_items`."""
        points, ids = self.user_vectors, self.interactions.user_ids
        scorer = self._points(points, points, device)
        return self._similar(users, k, points, ids, threads, scorer)

    def _similar(
        self, asked: Any, k: int, points: Float32, ids: Ids, threads: int | None, scorer: Scorer
    ) -> pl.DataFrame:
        one, rows = rows_of(ids, asked)
        n = len(points)
        itself = (np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int32))
        found = top_k(scorer, rows, k, exclude=itself, threads=threads)
        name = "user_id" if ids is self.interactions.user_ids else "item_id"
        return self._frame(found, one, rows, points, ids, ids, query="query_id", name=name)

    def _mask(self, allow: Iterable[Any] | None, deny: Iterable[Any] | None) -> Bool | None:
        if allow is None and deny is None:
            return None
        ids = self.interactions.item_ids
        mask = np.full(len(ids), allow is None)
        if allow is not None:
            mask[ids.rows(allow)] = True
        if deny is not None:
            mask[ids.rows(deny)] = False
        return mask

    def _frame(
        self,
        found: TopK,
        one: bool,
        rows: Int32,
        points: Float32,
        query_ids: Ids,
        target_ids: Ids,
        query: str = "user_id",
        name: str = "item_id",
    ) -> pl.DataFrame:
        """Put lists into a frame, with ids, and with 1 - D^2 / 2 as the score."""
        filled = found.items >= 0
        row, rank = np.nonzero(filled)
        scores = closeness(found.scores, points[rows], self.options.geometry)
        columns = {
            "rank": pl.Series((rank + 1).astype(np.int32)),
            name: target_ids.take(found.items[filled]),
            "score": pl.Series(scores[filled].astype(np.float32)),
        }
        if not one:
            columns = {query: query_ids.take(rows[row]), **columns}
        return pl.DataFrame(columns)

    # ------------------------------------------------------------------------------ on disk

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to the folder `path`, atomically: safetensors, Parquet, JSON, Markdown.

        The training interactions are part of it: they are what `recommend` leaves out. So are the
        items' places on a plane, what is known of the model's quality, and a model card.
        """
        self._fitted, _ = self._known().projected()
        write_model(path, self._fitted, self.options)

    @classmethod
    def load(cls, path: str | PathLike[str], *, mmap: bool = False) -> CML:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        mmap : bool
            Map the points into memory, read-only, instead of reading them: processes that serve
            the same model share them.

        Raises
        ------
        StoreError
            The folder is missing, damaged, or something else; or it says what cannot be.
        """
        options, known = read_model(path, mmap=mmap)
        model = cls(options)
        model._take(known)
        return model


def _checked_steps(steps: int) -> int:
    check_count("steps", steps)
    return steps

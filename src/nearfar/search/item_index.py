"""`ItemIndex`: approximate search for the nearest items in a part of the catalogue, with faiss.

The items are assigned to lists, each around a k-means centre (IVF-Flat, about sqrt(M) lists of M
items), and a query searches only the lists whose centres are nearest to it. You set a *recall*
target; `build` finds the fewest lists that reach it on a sample of the model's users. The recall on
other users is measured and stored with the index.

**What is approximate, and what is not.** Items in lists that are not searched are missed. Items
that are found have exact scores, are ordered as by `nearfar.search.neighbours.top_k`, and satisfy
all filters. A query for which k items are left always gets k items, by exact search if the lists
do not contain enough.

**The popularity prior.** An index serves all settings of the dial: the weights of the items are two
more coordinates of the lists (`nearfar.search.lift`). The target is reached at the model's own
setting, at which the recall is measured, and at setting 0, which usually takes more lists; the
larger number of lists is searched at all settings below the model's own.

The search is in `nearfar.search.probing`, and the use of faiss in `nearfar.search.inverted_lists`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError, StoreError
from nearfar.method.prior import ItemWeights, checked_setting
from nearfar.runtime import store
from nearfar.runtime.arrays import Float32, Int32
from nearfar.runtime.checks import an_instance, checked_seed, local_path, real, said, whole
from nearfar.runtime.threads import checked_threads
from nearfar.search.inverted_lists import Lists
from nearfar.search.lift import aim, lifted
from nearfar.search.neighbours import Exclusion, Points, table_of, top_k
from nearfar.search.probing import IndexedPoints
from nearfar.search.scoring import HasPoints, scorer_of

KIND = "index"
"""The kind of folder in the manifest."""
SAMPLE = 1000
"""Maximum number of users for choosing the number of lists, and for measuring the recall."""


@dataclass(frozen=True)
class Figures:
    """The size and the recall of an index."""

    n_lists: int
    """Number of lists."""
    n_probed: int
    """Number of lists searched for a query; if it is all of them, the search is exact."""
    k: int
    """Length of the result lists for which the recall was measured."""
    wanted: float
    """The recall target."""
    recall: float
    """The measured recall, on users other than those for whom the number of lists was chosen."""
    n_users: int
    """Number of users on whom the recall was measured."""
    popularity: float = 0.0
    """The setting of the popularity dial at which the recall was measured: the model's own."""
    n_probed_below: int | None = None
    """Number of lists searched at lower settings; None for `n_probed`."""

    def probed(self, popularity: float) -> int:
        """Return the number of lists searched for a query at a setting of the dial."""
        if self.n_probed_below is None or popularity >= self.popularity:
            return self.n_probed
        return self.n_probed_below


class ItemIndex:
    """An approximate index of a model's items.

    Create it with `build` or `load`, and use it with ``model.recommend(..., index=index)``.

    The *recall at k* of a user is the share of the k best items, without the user's training items,
    that the index finds; that of the index is the mean over users, at the model's own setting of
    the popularity dial. It does not apply to longer lists or to queries that differ from the
    model's users; `measure` measures others.

    Examples
    --------
    >>> import nearfar as nf
    >>> liked = [(u, i) for u in range(8) for i in range(8) if (u + i) % 2 == 0 and u != i]
    >>> model = nf.CML(dim=3, batch=8, optimiser=nf.Adam(0.03))
    >>> model = model.fit(nf.Interactions.from_pairs(liked), epochs=30)
    >>> index = ItemIndex.build(model, recall=0.9, k=1)
    >>> model.recommend(0, k=1, index=index)["item_id"].to_list()
    [0]
    """

    def __init__(
        self, lists: Lists, points: Points, figures: Figures, weights: ItemWeights
    ) -> None:
        self._lists, self._points, self.figures = lists, points, figures
        self._weights = weights

    def __repr__(self) -> str:
        of = self.figures
        dial = f" at popularity {of.popularity:g}" if self._weights.gamma else ""
        return (
            f"ItemIndex({self.n_items:,} items, recall {of.recall:.4f} at {of.k} of {of.n_users:,}"
            f" users{dial}, {of.n_probed:,} of {of.n_lists:,} lists)"
        )

    @property
    def recall(self) -> float:
        """The measured recall at `k`."""
        return self.figures.recall

    @property
    def k(self) -> int:
        """Length of the result lists for which `recall` was measured."""
        return self.figures.k

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self._points.n_items

    @property
    def exact(self) -> bool:
        """Whether all lists would have to be searched, in which case the search is exact.

        At the model's own setting of the popularity dial, as `recall`.
        """
        return self.figures.n_probed == self.figures.n_lists

    # ---------------------------------------------------------------------------------- build

    @classmethod
    def build(
        cls,
        model: HasPoints,
        recall: float = 0.95,
        k: int = 10,
        *,
        seed: int = 0,
        threads: int | None = None,
    ) -> ItemIndex:
        """Build an index with a given recall relative to exact search.

        Parameters
        ----------
        model : CML
            A fitted model. It must not be trained further while the index is in use.
        recall : float
            The target for the recall at `k`; 1 is exact search.
        k : int
            Length of the result lists.
        seed : int
            Seed for the start of k-means and for the sample of users.
        threads : int, optional
            Number of threads; all available cores if None. The result does not depend on it.

        Raises
        ------
        OptionError
            `model` is not a model, `recall` is not in (0, 1], or `k` or `threads` is less than 1.
        NotFittedError
            The model has not been fitted.
        MissingExtraError
            faiss is not installed.
        """
        recall, k = real("recall", recall, above=0.0, most=1.0), whole("k", k)
        seed, n_threads = checked_seed(seed), checked_threads(threads)
        points, weights = _points_of(model), model.weights
        lists = Lists.of(lifted(points.targets, weights.at(1.0)), seed=seed, threads=n_threads)
        users = np.flatnonzero(np.diff(model.interactions.indptr))  # the others' points are random
        drawn = users[np.random.default_rng(seed).permutation(len(users))[: 2 * SAMPLE]]
        chosen_on, measured_on = np.sort(drawn[::2]), np.sort(drawn[1::2])
        seen = (model.interactions.indptr, model.interactions.items)
        own, n_measured = model.dial(), len(measured_on)
        made = cls(lists, points, Figures(len(lists), 1, k, recall, 1.0, n_measured, own), weights)
        probed = {}
        for setting in {0.0, own}:
            scorer = made.scorer(points.queries, popularity=setting, threads=n_threads)
            best = top_k(scorer.points, chosen_on, k, exclude=seen, threads=n_threads).items
            queries = np.stack([scorer.probe(int(row)) for row in chosen_on])
            probed[setting] = _least_probed(lists, queries, best, recall)
        most = max(probed.values())
        made.figures = replace(made.figures, n_probed=probed[own], n_probed_below=most)
        measured = made.measure(points.queries, measured_on, seen, threads=n_threads)
        made.figures = replace(made.figures, recall=measured)
        return made

    def measure(
        self,
        queries: Float32,
        rows: npt.ArrayLike,
        exclude: Exclusion | None = None,
        *,
        popularity: float | None = None,
        threads: int | None = None,
    ) -> float:
        """Measure the recall at `k` of some queries, against exact search.

        Parameters
        ----------
        queries : float32 array of shape (n_users, dim)
        rows : int array of shape (n_rows,)
            The rows of `queries` to use.
        exclude : (indptr, items), optional
            As in `nearfar.search.neighbours.top_k`.
        popularity, threads
            As in `scorer`.

        Returns
        -------
        float
            The mean over queries with at least one item left; 1 if there are none.
        """
        scorer = self.scorer(queries, popularity=popularity, threads=threads)
        options: dict[str, Any] = {"exclude": exclude, "threads": threads}
        exact = top_k(scorer.points, rows, self.k, **options).items
        found = top_k(scorer, rows, self.k, **options).items
        shares = [
            np.isin(best[best >= 0], mine).mean()
            for best, mine in zip(exact, found, strict=True)
            if best[0] >= 0
        ]
        return float(np.mean(shares)) if shares else 1.0

    # ------------------------------------------------------------------------------ in use

    def scorer(
        self,
        queries: Float32,
        *,
        popularity: float | None = None,
        threads: int | None = None,
    ) -> IndexedPoints:
        """Return a scorer of these queries for `nearfar.search.neighbours.top_k`.

        Parameters
        ----------
        queries : float32 array of shape (n_users, dim)
        popularity : float, optional
            The setting of the popularity dial; if None, the model's own when the index was made.
        threads : int, optional
            Number of threads; all available cores if None.

        Raises
        ------
        DataError
            The dimensions of the queries and the items differ.
        OptionError
            `popularity` is not a number from 0 to 1,000, or is above 0 and the model has no prior.
        """
        setting = self.figures.popularity
        if popularity is not None:
            setting = checked_setting(popularity)
        if setting > 0.0 and self._weights.gamma == 0.0:
            raise OptionError(
                f"`popularity` is {popularity!r}, but the model of the index has no popularity"
                " prior; omit `popularity`."
            )
        points = self._points.with_queries(queries).weighted(self._weights.at(setting))
        more = aim(setting) if self._weights.gamma else None
        n_probed = self.figures.probed(setting)
        return IndexedPoints(points, self._lists, n_probed, checked_threads(threads), more)

    def check(self, item_vectors: Float32, weights: ItemWeights) -> None:
        """Check that the index was made from these item vectors and weights.

        Raises
        ------
        OptionError
            It was made from others.
        """
        if not self._weights.agree(an_instance("weights", weights, ItemWeights)):
            raise OptionError(
                f"`index` was made with another popularity prior (gamma {self._weights.gamma:g})"
                f" than the model's (gamma {weights.gamma:g}); make it again with"
                " ItemIndex.build(model)."
            )
        mine, item_vectors = self._points.targets, table_of("item_vectors", item_vectors)
        here = (item_vectors.ctypes.data, item_vectors.shape, item_vectors.strides)
        if here == (mine.ctypes.data, mine.shape, mine.strides):  # the usual case, without hashing
            return
        if digest_of(item_vectors) != digest_of(mine):
            raise OptionError(
                f"`index` is of {self.n_items:,} other item vectors than the model's"
                f" {len(item_vectors):,}; make it again with ItemIndex.build(model)."
            )

    def digest(self) -> str:
        """Hash everything that determines the results: vectors, weights, lists and their numbers.

        SHA-256, in hexadecimal.
        """
        of, made_from = self.figures, _digest(self._points, self._weights)
        named = f"{of.n_probed} {of.n_probed_below} {of.popularity} {made_from} "
        return sha256(named.encode() + self._lists.list_of().tobytes()).hexdigest()

    # ------------------------------------------------------------------------------ on disk

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to the folder `path`, atomically.

        The folder contains a copy of the item vectors, in the order of the lists, and can be used
        only with the model that the index was made from.

        Raises
        ------
        StoreError
            The folder cannot be written or holds something else.
        """
        path = local_path(path)
        made_from = _digest(self._points, self._weights)
        meta = {"figures": asdict(self.figures), "vectors": made_from}
        store.save_folder(path, kind=KIND, meta=meta, files={"lists": self._lists.write})

    @classmethod
    def load(cls, path: str | PathLike[str], model: HasPoints) -> ItemIndex:
        """Load an index that `save` wrote; the lists are mapped into memory, not read.

        The checksum of the file is verified. However, anyone who can write both the file and its
        manifest can make faiss read outside its memory, so load indexes only from trusted sources.

        Parameters
        ----------
        path : path
            The folder.
        model : CML
            The model that the index was built from.

        Raises
        ------
        StoreError
            The folder is missing, damaged, of another kind, or the index of another model.
        MissingExtraError
            faiss is not installed.
        """
        points, weights = _points_of(model), model.weights
        folder = store.load_folder(path, kind=KIND)
        try:
            figures, vectors = Figures(**folder.meta["figures"]), folder.meta["vectors"]
            file = folder.files["lists"]
        except (KeyError, TypeError) as error:
            raise StoreError(f"{str(path)!r} is not a readable index: {error}.") from error
        if vectors != _digest(points, weights):
            raise StoreError(
                f"{str(path)!r} is the index of another model: its item vectors, or their weights,"
                " are not those of this one. Pass the model that it was made from, or make it again"
                " with `nearfar index`."
            )
        n_items, dim = points.targets.shape
        lists = Lists.opened(file, (n_items, dim + (2 if weights.gamma else 0)))
        return cls(lists, points, figures, weights)


def _points_of(model: HasPoints) -> Points:
    """Return the points of a model; refuse what is not one, such as the path of one."""
    if isinstance(model, type) or not hasattr(model, "item_vectors"):
        raise OptionError(f"`model` must be a fitted CML; got {said(model)}.")
    return scorer_of(model.user_vectors, model.item_vectors, model.options.geometry)


def _digest(points: Points, weights: ItemWeights) -> str:
    """Hash the item vectors, and their weights if the model has a prior."""
    weight = weights.at(1.0)
    return digest_of(points.targets, *([] if weight is None else [weight[:, None]]))


def digest_of(*tables: Float32) -> str:
    """Hash tables of vectors, with their shapes: SHA-256, in hexadecimal."""
    digest = sha256()
    for table in tables:
        digest.update(f"{table.shape}".encode())
        digest.update(np.ascontiguousarray(table, "<f4").data)
    return digest.hexdigest()


def _least_probed(lists: Lists, queries: Float32, best: Int32, recall: float) -> int:
    """Return the fewest lists with which the mean recall of the best items reaches `recall`.

    An item is found if and only if its list is searched. So it suffices to know the position of its
    list in the order in which the query searches the lists. For a recall of 1 it is every list:
    what is enough for some queries need not be for others.
    """
    if recall == 1.0:
        return len(lists)
    list_of, found, n_queries = lists.list_of(), np.zeros(len(lists)), 0
    for query, items in zip(queries, best, strict=True):
        listed = items[items >= 0]
        if len(listed):
            places = np.argsort(lists.order(query))[list_of[listed]]
            found += np.bincount(places, minlength=len(lists)) / len(listed)
            n_queries += 1
    reached = np.cumsum(found) / max(n_queries, 1)
    return min(int(np.searchsorted(reached, recall)) + 1, len(lists))

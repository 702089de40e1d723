"""`ItemIndex`: the nearest items found by looking through a part of the catalogue, with faiss.

The items are put into lists, each around a centre of k-means (IVF-Flat, about sqrt(M) lists of M
items), and a query looks only through the lists whose centres are nearest to it. How many that are
is not for the user to say: a *recall* is asked for, and the fewest lists that reach it are found
out on users of the model. What they reach on other users is measured and stored with the index.

**What is approximate, and what is not.** An item in a list that was not looked through is missed.
What is found has its exact score, is ordered as `nearfar.search.neighbours.top_k` says, and
passes all filters; and whoever has k items left gets k of them, by exact search if the lists do
not have them.

How that is searched is the business of `nearfar.search.probing`, and faiss that of
`nearfar.search.inverted_lists`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError, StoreError
from nearfar.runtime import store
from nearfar.runtime.arrays import Float32, Int32
from nearfar.runtime.checks import check_count
from nearfar.runtime.threads import checked_threads
from nearfar.search.inverted_lists import Lists
from nearfar.search.neighbours import Exclusion, Points, top_k
from nearfar.search.probing import IndexedPoints
from nearfar.search.scoring import HasPoints, scorer_of

KIND = "index"
"""What the manifest of a saved folder calls this."""
SAMPLE = 1000
"""Users on whom the number of lists is chosen, at most; as many others measure the recall."""


@dataclass(frozen=True)
class Figures:
    """What is known about an index."""

    n_lists: int
    """Lists that the items are in."""
    n_probed: int
    """Lists that a query looks through; all of them: the search is exact."""
    k: int
    """Length of the lists that the recall is of."""
    wanted: float
    """The recall that was asked for."""
    recall: float
    """The recall that was measured, on users that the number of lists was not chosen on."""
    n_users: int
    """How many users that were."""


class ItemIndex:
    """An approximate index of a model's items.

    Made by `build` or `load`; ``model.recommend(..., index=index)`` uses it.

    The *recall at k* of a user is the share of the k best items, those of the training interactions
    left out, that the index finds; that of the index is the mean over users. It says nothing about
    longer lists, nor about queries unlike the model's users.

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

    def __init__(self, lists: Lists, points: Points, figures: Figures) -> None:
        self._lists, self._points, self.figures = lists, points, figures

    def __repr__(self) -> str:
        of = self.figures
        return (
            f"ItemIndex({self.n_items:,} items, recall {of.recall:.4f} at {of.k} of {of.n_users:,}"
            f" users, {of.n_probed:,} of {of.n_lists:,} lists)"
        )

    @property
    def recall(self) -> float:
        """The measured recall at `k`."""
        return self.figures.recall

    @property
    def k(self) -> int:
        """Length of the lists that `recall` is of."""
        return self.figures.k

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self._points.n_items

    @property
    def exact(self) -> bool:
        """Whether every list would have to be looked through; then the search is the exact one."""
        return self.figures.n_probed == self.figures.n_lists

    # ------------------------------------------------------------------------------- made from

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
        """Make an index that finds so much of what exact search finds.

        Parameters
        ----------
        model : CML
            A fitted one. It must not be trained further while the index is in use.
        recall : float
            The recall at `k` to reach; 1 is exact search.
        k : int
            Length of the lists.
        seed : int
            Names the random numbers: where k-means starts, and which users are the sample.
        threads : int, optional
            Every available core if None. The result does not depend on it.

        Raises
        ------
        OptionError
            `recall` is not in (0, 1], or `k` or `threads` is less than 1.
        NotFittedError
            The model has not been fitted.
        MissingExtraError
            faiss is not installed.
        """
        if not 0 < recall <= 1:
            raise OptionError(f"`recall` must be above 0 and at most 1; got {recall!r}.")
        check_count("k", k)
        n_threads = checked_threads(threads)
        points = scorer_of(model.user_vectors, model.item_vectors, model.options.geometry)
        lists = Lists.of(points.targets, seed=seed, threads=n_threads)
        drawn = np.random.default_rng(seed).permutation(points.n_users)[: 2 * SAMPLE]
        chosen_on, measured_on = np.sort(drawn[::2]), np.sort(drawn[1::2])
        seen = (model.interactions.indptr, model.interactions.items)
        best = top_k(points, chosen_on, k, exclude=seen, threads=n_threads)
        n_probed = _least_probed(lists, points.queries[chosen_on], best.items, recall)
        figures = Figures(len(lists), n_probed, k, recall, 1.0, len(measured_on))
        made = cls(lists, points, figures)
        measured = made.measure(points.queries, measured_on, seen, threads=n_threads)
        return cls(lists, points, replace(figures, recall=measured))

    def measure(
        self,
        queries: Float32,
        rows: npt.ArrayLike,
        exclude: Exclusion | None = None,
        *,
        threads: int | None = None,
    ) -> float:
        """Measure the recall at `k` of some queries, against exact search.

        Parameters
        ----------
        queries : float32 array of shape (n_users, dim)
        rows : int array of shape (n_rows,)
            Which of them.
        exclude : (indptr, items), optional
            As for `nearfar.search.neighbours.top_k`.
        threads : int, optional

        Returns
        -------
        float
            The mean over queries that have any item left; 1 if none has.
        """
        points = self._points.with_queries(queries)
        options: dict[str, Any] = {"exclude": exclude, "threads": threads}
        exact = top_k(points, rows, self.k, **options).items
        found = top_k(self.scorer(queries, threads=threads), rows, self.k, **options).items
        shares = [
            np.isin(best[best >= 0], mine).mean()
            for best, mine in zip(exact, found, strict=True)
            if best[0] >= 0
        ]
        return float(np.mean(shares)) if shares else 1.0

    # ------------------------------------------------------------------------------ in use

    def scorer(self, queries: Float32, *, threads: int | None = None) -> IndexedPoints:
        """Give a scorer of these queries for `nearfar.search.neighbours.top_k`.

        Parameters
        ----------
        queries : float32 array of shape (n_users, dim)
        threads : int, optional
            Threads to search on; every available core if None.

        Raises
        ------
        DataError
            The queries are not as wide as the items.
        """
        points = self._points.with_queries(queries)
        n_probed = self.figures.n_probed
        return IndexedPoints(points, self._lists, n_probed, checked_threads(threads))

    def check(self, item_vectors: Float32) -> None:
        """Refuse a table of items that is not the one that was indexed.

        Raises
        ------
        OptionError
            It is another.
        """
        mine = self._points.targets
        here = (item_vectors.ctypes.data, item_vectors.shape, item_vectors.strides)
        if here == (mine.ctypes.data, mine.shape, mine.strides):  # usual, and takes no time
            return
        if digest_of(item_vectors) != digest_of(mine):
            raise OptionError(
                f"`index` is of {self.n_items:,} other item vectors than the model's"
                f" {len(item_vectors):,}; make it anew with ItemIndex.build(model)."
            )

    def digest(self) -> str:
        """Hash what the index finds depends on: which items are in a list, and how many it takes.

        SHA-256, in hexadecimal.
        """
        named = f"{self.figures.n_probed} {digest_of(self._points.targets)} "
        return sha256(named.encode() + self._lists.list_of().tobytes()).hexdigest()

    # ------------------------------------------------------------------------------ on disk

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to the folder `path`, atomically.

        It holds the items' vectors once more, in the order of the lists, and is good for the model
        it was made from alone.

        Raises
        ------
        StoreError
            The folder cannot be written or holds something else.
        """
        meta = {"figures": asdict(self.figures), "vectors": digest_of(self._points.targets)}
        store.save_folder(path, kind=KIND, meta=meta, files={"lists": self._lists.write})

    @classmethod
    def load(cls, path: str | PathLike[str], model: HasPoints) -> ItemIndex:
        """Open what `save` wrote; the lists are mapped into memory, not read.

        The file is as it was saved, which is verified; but whoever can write both it and its
        manifest can make faiss read beyond its memory. Load indexes from your own hands.

        Parameters
        ----------
        path : path
            The folder.
        model : CML
            The one it was built from.

        Raises
        ------
        StoreError
            The folder is missing, damaged, something else, or the index of another model.
        MissingExtraError
            faiss is not installed.
        """
        folder = store.load_folder(path, kind=KIND)
        points = scorer_of(model.user_vectors, model.item_vectors, model.options.geometry)
        try:
            figures, vectors = Figures(**folder.meta["figures"]), folder.meta["vectors"]
            file = folder.files["lists"]
        except (KeyError, TypeError) as error:
            raise StoreError(f"{str(path)!r} is not a readable index: {error}.") from error
        if vectors != digest_of(points.targets):
            raise StoreError(
                f"{str(path)!r} is the index of another model: its item vectors are not those of"
                " this one. Give the model that it was made from, or make it anew with"
                " `nearfar index`."
            )
        return cls(Lists.opened(file, points.targets.shape), points, figures)


def digest_of(*tables: Float32) -> str:
    """Hash tables of vectors, with their shapes: SHA-256, in hexadecimal."""
    digest = sha256()
    for table in tables:
        digest.update(f"{table.shape}".encode())
        digest.update(np.ascontiguousarray(table, "<f4").data)
    return digest.hexdigest()


def _least_probed(lists: Lists, queries: Float32, best: Int32, recall: float) -> int:
    """Find the fewest lists with which a mean share of `recall` of each query's best is found.

    An item is found exactly if its list is among those looked through. So it is enough to know the
    place of its list in the order in which the query takes lists.
    """
    list_of, found, n_queries = lists.list_of(), np.zeros(len(lists)), 0
    for query, items in zip(queries, best, strict=True):
        listed = items[items >= 0]
        if len(listed):
            places = np.argsort(lists.order(query))[list_of[listed]]
            found += np.bincount(places, minlength=len(lists)) / len(listed)
            n_queries += 1
    reached = np.cumsum(found) / max(n_queries, 1)
    return min(int(np.searchsorted(reached, recall)) + 1, len(lists))

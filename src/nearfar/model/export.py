"""Export of a model's vectors to other programs: Parquet, NumPy, word2vec's text, a faiss index.

=========  =============================================  ====================================
format     the file                                       ids
=========  =============================================  ====================================
parquet    columns ``id`` and ``vector`` (array of d)     in the file, in their own type
numpy      ``.npy``, float32 (n, d)                       in a separate ``.ids.parquet``
word2vec   text: ``n d``, then lines ``id v_1 ... v_d``   as text; white space is refused
faiss      an exact index: IndexFlatIP on the sphere,     in the index if they are integers,
           else IndexFlatL2                               else in a separate ``.ids.parquet``
=========  =============================================  ====================================

A file of ids has one column, ``id``, in the order of the vectors.

**The popularity prior.** The items of a model with a prior also have weights
b_j = popularity gamma log f_j (`nearfar.method.prior`), at the setting of the dial that is asked
for; they are proportional to it. The score is u_i.v_j + b_j, off the sphere less |v_j|^2 / 2.

- parquet: a float32 column ``weight``, and the metadata ``nearfar.gamma`` and
  ``nearfar.popularity``;
- numpy and word2vec: the same column and metadata in the file of ids;
- faiss: the index is an IndexFlatIP of d + 1 coordinates, (v_j, b_j), off the sphere
  (v_j, b_j - |v_j|^2 / 2), for queries (u_i, 1).

**Neighbours.** The co-occurrence term of a model (`nearfar.method.co_occurrence`) is not in the
files: it depends on the items of the user, and is no product of vectors. A warning says so, and, in
Parquet files, the metadata ``nearfar.left_out``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.ids import Ids
from nearfar.errors import DataError, OptionError, StoreError
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Float32
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import an_instance, local_path, one_of, said
from nearfar.runtime.forks import check_fork
from nearfar.search.inverted_lists import load_faiss, write_index

Writer = Callable[[Path], Any]

WHAT = ("items", "users")
"""The tables that can be exported."""


class Vectors(NamedTuple):
    """The vectors to export."""

    ids: Ids
    """The ids, n of them."""
    table: Float32
    """float32 (n, d)."""
    on_sphere: bool
    """Whether the order by inner product is the order by distance."""
    weight: Float32 | None = None
    """float32 (n,) weights; None without a prior."""
    facts: Mapping[str, str] = MappingProxyType({})
    """What the weights are, and what is left out, for the metadata of Parquet."""


def export(
    model: CML,
    path: str | PathLike[str],
    form: str = "parquet",
    *,
    what: str = "items",
    popularity: float | None = None,
) -> list[Path]:
    """Write the vectors of a model, with their ids and weights, to a new file.

    Parameters
    ----------
    model : CML
        A fitted model.
    path : path
        The file, which must not exist. What the format cannot store of ids and weights is written
        to a second file of the same name with the suffix ``.ids.parquet``.
    form : str
        One of `FORMATS`; see above.
    what : str
        "items" or "users".
    popularity : float, optional
        The setting of the popularity dial for the weights of the items; if None, that of the
        model's `Prior`.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OptionError
        `model` is not a model, `path` is not a local path, `form` or `what` is none of these, or
        `popularity` is given for users or for a model without a prior.
    DataError
        An id cannot be written in word2vec's text.
    StoreError
        A file exists, or writing fails; no file is left then.
    MissingExtraError
        faiss is not installed.

    Warns
    -----
    NearfarWarning
        The model has neighbours, which are not in the files.

    Examples
    --------
    >>> import tempfile
    >>> import nearfar as nf
    >>> model = nf.CML(dim=2, batch=4)
    >>> model = model.fit(nf.Interactions.from_pairs([("a", 1), ("b", 2)]), epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = export(model, f"{folder}/users.parquet", what="users")
    ...     pl.read_parquet(files[0]).columns
    ['id', 'vector']
    """
    check_fork()
    model, file = an_instance("model", model, CML), local_path(path)
    form, what = one_of("form", form, FORMATS), one_of("what", what, WHAT)
    data, on_sphere = model.interactions, model.options.geometry == "sphere"
    setting = model.dial(popularity)
    left_out = {"nearfar.left_out": str(model.options.neighbours)} if model.neighbours else {}
    if what == "items":
        weight, facts = _weighted(model, setting)
        vectors = Vectors(data.item_ids, model.item_vectors, on_sphere, weight, facts | left_out)
    else:
        if popularity is not None:
            raise OptionError(
                f"`popularity` is {said(popularity)}, but only items have weights; omit it for"
                " what='users'."
            )
        vectors = Vectors(data.user_ids, model.user_vectors, on_sphere, facts=left_out)
    files = FORMATS[form](vectors, file)
    write_new(files)
    if left_out:
        warn(
            f"The co-occurrence term of the model ({model.options.neighbours}) is not in the"
            " exported files: scores from them are those of the model without it."
        )
    return list(files)


def _weighted(model: CML, setting: float) -> tuple[Float32 | None, dict[str, str]]:
    """Return the weights of the items and what they are; None without a prior."""
    if model.gamma == 0.0:
        return None, {}
    weight = model.item_weight(setting)
    if weight is None:
        weight = np.zeros(model.interactions.n_items, np.float32)
    return weight, {"nearfar.gamma": repr(model.gamma), "nearfar.popularity": repr(setting)}


def write_new(files: Mapping[Path, Writer]) -> None:
    """Write new files: all of them completely, or none.

    Each is written under a temporary name in the same folder, synchronised and renamed.

    Raises
    ------
    StoreError
        A file exists, or writing fails.
    """
    for target in files:
        if target.exists():
            raise StoreError(f"{str(target)!r} exists; remove it first or choose another path.")
    written: dict[Path, Path] = {}
    try:
        for target, write in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            written[target] = target.with_name(f".nearfar-{uuid.uuid4().hex}.tmp")
            write(written[target])
            _synchronise(written[target])
        for target, temporary in written.items():
            os.replace(temporary, target)
    except BaseException as error:
        for path in (*written, *written.values()):
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError | pl.exceptions.PolarsError):
            raise
        raise StoreError(
            f"Writing {', '.join(repr(str(target)) for target in files)} failed: {error}. No file"
            " was left; check the free space and the permissions."
        ) from error


def _synchronise(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


# ---------------------------------------------------------------------------------- formats


def _parquet(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    dtype = pl.Array(pl.Float32, vectors.table.shape[1])
    return {path: _frame(vectors, vector=pl.Series(np.asarray(vectors.table), dtype=dtype))}


def _frame(vectors: Vectors, **columns: pl.Series) -> Writer:
    """Return the writer of a frame of the ids, other columns, and the weights if there are any."""
    frame = pl.DataFrame({"id": vectors.ids.values, **columns})
    if vectors.weight is not None:
        frame = frame.with_columns(weight=pl.Series(vectors.weight))
    if not vectors.facts:
        return frame.write_parquet
    return partial(frame.write_parquet, metadata=dict(vectors.facts))


def _numpy(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    def write(file: Path) -> None:
        with file.open("wb") as opened:  # to a name without .npy, numpy would append it
            np.save(opened, vectors.table)

    return {**_ids_beside(vectors, path), path: write}


def _word2vec(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    words = [str(one) for one in vectors.ids]
    for word in words:
        if word.split() != [word]:
            raise DataError(
                f"The {vectors.ids.name} id {word!r} has white space or is empty, which would"
                " break a line of word2vec's text; use another format, such as parquet."
            )

    def write(file: Path) -> None:
        n, dim = vectors.table.shape
        line = "%s" + " %.9g" * dim + "\n"  # nine digits distinguish all float32 values
        with file.open("w", encoding="utf-8", newline="\n") as opened:
            opened.write(f"{n} {dim}\n")
            for word, row in zip(words, vectors.table, strict=True):
                opened.write(line % (word, *row.tolist()))

    beside = {} if vectors.weight is None else _ids_beside(vectors, path)
    return {**beside, path: write}


def _faiss(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    faiss, table, by_product = load_faiss(), vectors.table, vectors.on_sphere
    if vectors.weight is not None:
        half = 0.0 if by_product else 0.5 * np.sum(table * table, axis=1)
        table, by_product = np.column_stack([table, vectors.weight - half]), True
    dim = table.shape[1]
    index = faiss.IndexFlatIP(dim) if by_product else faiss.IndexFlatL2(dim)
    whole = _as_int64(vectors.ids)
    if whole is None:
        index.add(table)
    else:
        index = faiss.IndexIDMap(index)
        index.add_with_ids(table, whole)

    beside = _ids_beside(vectors, path) if whole is None else {}
    return {**beside, path: partial(write_index, index, "vectors")}


def _as_int64(ids: Ids) -> Any:
    """Return ids as int64, or None if they are not integers or too large."""
    if not ids.dtype.is_integer() or (len(ids) and ids.id(len(ids) - 1) >= 2**63):
        return None
    return ids.values.to_numpy().astype(np.int64)


def _ids_beside(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    return {path.with_suffix(".ids.parquet"): _frame(vectors)}


FORMATS: Mapping[str, Callable[[Vectors, Path], dict[Path, Writer]]] = {
    "parquet": _parquet,
    "numpy": _numpy,
    "word2vec": _word2vec,
    "faiss": _faiss,
}
"""The formats by name; each returns the files to write."""

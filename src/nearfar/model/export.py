"""A model's vectors for other programs: Parquet, NumPy, the text of word2vec, an index of faiss.

=========  =============================================  ====================================
format     the file                                       ids
=========  =============================================  ====================================
parquet    columns ``id`` and ``vector`` (array of d)     in the file, in their own type
numpy      ``.npy``, float32 (n, d)                       ``.ids.parquet`` beside it
word2vec   text: ``n d``, then ``id v_1 ... v_d`` a line  as text; white space is refused
faiss      an exact index: IndexFlatIP on the sphere,     in the index if they are integers,
           else IndexFlatL2                               else ``.ids.parquet`` beside it
=========  =============================================  ====================================

A file of ids has one column, ``id``, in the order of the vectors.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.ids import Ids
from nearfar.errors import DataError, OptionError, StoreError
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Float32
from nearfar.search.inverted_lists import load_faiss, write_index

Writer = Callable[[Path], Any]

WHAT = ("items", "users")
"""What can be exported."""


class Vectors(NamedTuple):
    """What is exported."""

    ids: Ids
    """The ids, n of them."""
    table: Float32
    """float32 (n, d)."""
    on_sphere: bool
    """Whether the product orders by distance."""


def export(
    model: CML, path: str | PathLike[str], form: str = "parquet", *, what: str = "items"
) -> list[Path]:
    """Write the vectors of a model, with their ids, to a file that is not there yet.

    Parameters
    ----------
    model : CML
        A fitted one.
    path : path
        The file; ids that have no place in it go beside it, under its name with the suffix
        ``.ids.parquet`` instead of its own.
    form : str
        One of `FORMATS`; see above.
    what : str
        "items" or "users".

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OptionError
        `form` or `what` is none of these.
    DataError
        An id has no form in word2vec's text.
    StoreError
        A file is there already, or writing fails; then nothing is left.
    MissingExtraError
        faiss is not installed.

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
    if form not in FORMATS:
        raise OptionError(f"`form` must be one of {', '.join(FORMATS)}; got {form!r}.")
    if what not in WHAT:
        raise OptionError(f"`what` must be one of {', '.join(WHAT)}; got {what!r}.")
    data, on_sphere = model.interactions, model.options.geometry == "sphere"
    if what == "items":
        vectors = Vectors(data.item_ids, model.item_vectors, on_sphere)
    else:
        vectors = Vectors(data.user_ids, model.user_vectors, on_sphere)
    files = FORMATS[form](vectors, Path(path))
    write_new(files)
    return list(files)


def write_new(files: Mapping[Path, Writer]) -> None:
    """Write files that are not there yet: all of them, whole, or none.

    Each is written under a temporary name beside its own, synchronised and renamed.

    Raises
    ------
    StoreError
        One is there already, or writing fails.
    """
    for target in files:
        if target.exists():
            raise StoreError(f"{str(target)!r} exists; remove it first or give another path.")
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
            f"Writing {', '.join(repr(str(target)) for target in files)} failed: {error}. Nothing"
            " is left; check the space and the rights there."
        ) from error


def _synchronise(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


# ---------------------------------------------------------------------------------- formats


def _parquet(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    dtype = pl.Array(pl.Float32, vectors.table.shape[1])
    columns = {
        "id": vectors.ids.values,
        "vector": pl.Series(np.asarray(vectors.table), dtype=dtype),
    }
    return {path: pl.DataFrame(columns).write_parquet}


def _numpy(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    def write(file: Path) -> None:
        with file.open("wb") as opened:  # given a name, numpy puts .npy behind it
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
        line = "%s" + " %.9g" * dim + "\n"  # nine digits tell all float32 apart
        with file.open("w", encoding="utf-8", newline="\n") as opened:
            opened.write(f"{n} {dim}\n")
            for word, row in zip(words, vectors.table, strict=True):
                opened.write(line % (word, *row.tolist()))

    return {path: write}


def _faiss(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    faiss, dim = load_faiss(), vectors.table.shape[1]
    index = faiss.IndexFlatIP(dim) if vectors.on_sphere else faiss.IndexFlatL2(dim)
    whole = _as_int64(vectors.ids)
    if whole is None:
        index.add(vectors.table)
    else:
        index = faiss.IndexIDMap(index)
        index.add_with_ids(vectors.table, whole)

    beside = _ids_beside(vectors, path) if whole is None else {}
    return {**beside, path: partial(write_index, index, "vectors")}


def _as_int64(ids: Ids) -> Any:
    """Give ids as int64, or None if they are no integers or too large for that."""
    if not ids.dtype.is_integer() or (len(ids) and ids.id(len(ids) - 1) >= 2**63):
        return None
    return ids.values.to_numpy().astype(np.int64)


def _ids_beside(vectors: Vectors, path: Path) -> dict[Path, Writer]:
    frame = pl.DataFrame({"id": vectors.ids.values})
    return {path.with_suffix(".ids.parquet"): frame.write_parquet}


FORMATS: Mapping[str, Callable[[Vectors, Path], dict[Path, Writer]]] = {
    "parquet": _parquet,
    "numpy": _numpy,
    "word2vec": _word2vec,
    "faiss": _faiss,
}
"""The formats, by name; each gives the files to write."""

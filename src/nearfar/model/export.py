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
from nearfar.errors import DataError, StoreError
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Float32
from nearfar.runtime.checks import an_instance, local_path, one_of
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


def export(
    model: CML, path: str | PathLike[str], form: str = "parquet", *, what: str = "items"
) -> list[Path]:
    """Write the vectors of a model, with their ids, to a new file.

    Parameters
    ----------
    model : CML
        A fitted model.
    path : path
        The file, which must not exist. If the format cannot store ids, they are written to a second
        file of the same name with the suffix ``.ids.parquet``.
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
        `model` is not a model, `path` is not a local path, or `form` or `what` is none of these.
    DataError
        An id cannot be written in word2vec's text.
    StoreError
        A file exists, or writing fails; no file is left then.
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
    check_fork()
    model, file = an_instance("model", model, CML), local_path(path)
    form, what = one_of("form", form, FORMATS), one_of("what", what, WHAT)
    data, on_sphere = model.interactions, model.options.geometry == "sphere"
    if what == "items":
        vectors = Vectors(data.item_ids, model.item_vectors, on_sphere)
    else:
        vectors = Vectors(data.user_ids, model.user_vectors, on_sphere)
    files = FORMATS[form](vectors, file)
    write_new(files)
    return list(files)


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
    columns = {
        "id": vectors.ids.values,
        "vector": pl.Series(np.asarray(vectors.table), dtype=dtype),
    }
    return {path: pl.DataFrame(columns).write_parquet}


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
    """Return ids as int64, or None if they are not integers or too large."""
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
"""The formats by name; each returns the files to write."""

"""The content of users and items as numbers: what the linear encoder reads.

Content is one sparse matrix over the joint rows: row r has the features of user r, or of item
r - N. Its column f belongs to row N + M + f of the tables, the vector w_f of
`nearfar.method.hybrid.Linear`. The features of users and of items have columns of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from nearfar.method.hybrid import Hybrid
from nearfar.runtime.arrays import Bool, Float32, Float64, Int, Int32, Int64
from nearfar.runtime.counter import Purpose, stream, uniform, uniform_at
from nearfar.runtime.jit import kernel


class Content(NamedTuple):
    """The features of all joint rows, CSR, and the rules by which delta is learned."""

    indptr: Int64
    """(N + M + 1,)."""
    columns: Int32
    """(nnz,) ascending in each row."""
    values: Float32
    """(nnz,)."""
    n_columns: int
    """F, the columns of users and items together."""
    n_users: int
    dropout: Float64
    """(2,) rho of users and of items."""
    decay: Float32
    """(2,) the pull of delta of users and of items."""
    weight_decay: Float32
    """(2,) the pull of w of users and of items."""
    n_user_columns: int
    """The first columns, those of the users."""


def make_content(
    n_users: int,
    n_items: int,
    users: Hybrid | None,
    items: Hybrid | None,
    user_features: sp.csr_array | None,
    item_features: sp.csr_array | None,
) -> Content:
    """Put the features of users and items, CSR float32, into one matrix over the joint rows."""
    indptr, columns, values = [np.zeros(1, np.int64)], [], []
    n_columns = 0
    for n, part in ((n_users, user_features), (n_items, item_features)):
        before = indptr[-1][-1]
        if part is None:
            indptr.append(np.full(n, before, np.int64))
        else:
            indptr.append(before + np.asarray(part.indptr[1:], np.int64))
            columns.append(part.indices.astype(np.int32) + np.int32(n_columns))
            values.append(part.data.astype(np.float32))
            n_columns += part.shape[1]
    rules = [Hybrid() if one is None else one for one in (users, items)]
    return Content(
        np.concatenate(indptr),
        np.concatenate(columns) if columns else np.empty(0, np.int32),
        np.concatenate(values) if values else np.empty(0, np.float32),
        n_columns,
        n_users,
        np.array([one.id_dropout for one in rules]),
        np.array([one.id_decay for one in rules], np.float32),
        np.array([one.encoder.decay for one in rules], np.float32),
        0 if user_features is None else user_features.shape[1],
    )


def as_matrix(content: Content) -> sp.csr_array:
    """Return the features as a sparse matrix, (N + M, F), float64."""
    values = content.values.astype(np.float64)
    shape = len(content.indptr) - 1, content.n_columns
    return sp.csr_array((values, content.columns, content.indptr), shape)


def rows_of(content: Content, side: str) -> sp.csr_array:
    """Return the features of "users" or "items" with their own columns, float32.

    The values, and without users' columns the indices too, are in the memory of the content.
    """
    n, of_users = content.n_users, content.n_user_columns
    items = side == "items"
    indptr = content.indptr[n:] if items else content.indptr[: n + 1]
    part = slice(indptr[0], indptr[-1])
    columns = content.columns[part]
    if items and of_users:
        columns = columns - np.int32(of_users)
    width = content.n_columns - of_users if items else of_users
    return sp.csr_array(
        (content.values[part], columns, indptr - indptr[0]), (len(indptr) - 1, width)
    )


def has_content(content: Content) -> Bool:
    """Return which joint rows have content, (N + M,)."""
    found: Bool = np.diff(content.indptr) > 0
    return found


def is_plain(content: Content, rows: Int64) -> Bool:
    """Return which rows of the tables hold a point itself, rather than delta or w."""
    found = np.zeros(len(rows), np.bool_)
    joint = rows < len(content.indptr) - 1
    found[joint] = ~has_content(content)[rows[joint]]
    return found


def keeps_id(content: Content, seed: int, step: int, rows: Int64) -> Bool:
    """Return m of joint rows in a step: whether delta counts, as for all rows without content."""
    key = stream(seed, Purpose.ID_DROPOUT, step)
    rho = content.dropout[(rows >= content.n_users).astype(np.int64)]
    kept: Bool = ~has_content(content)[rows] | (uniform(key, rows) >= rho)
    return kept


@kernel
def keeps_id_at(content: Content, key: np.uint64, row: Int) -> bool:
    """Return m of one joint row; `key` is the stream of the step."""
    if content.indptr[row + 1] == content.indptr[row]:
        return True
    rho = content.dropout[0] if row < content.n_users else content.dropout[1]
    return bool(uniform_at(key, row, 0) >= rho)


@kernel
def id_pull(content: Content, row: Int) -> np.float32:
    """Return the decay of delta of a joint row; 0 for a row without content."""
    if content.indptr[row + 1] == content.indptr[row]:
        return np.float32(0.0)
    return np.float32(content.decay[0 if row < content.n_users else 1])


@kernel
def weight_pull(content: Content, column: Int) -> np.float32:
    """Return the decay of the vector w of a column."""
    return np.float32(content.weight_decay[0 if column < content.n_user_columns else 1])


@kernel
def encode(
    content: Content, listed: Int64, weights: Float32, own: Float32, out: Float32, unit: bool
) -> None:
    """Write g(x) + delta of joint rows `listed` to `out`, (n, d); at length 1 if `unit`.

    `weights` are all vectors w, (F, d), and `own` the deltas of the rows, (n, d), which may be
    `out` itself.
    """
    dim = out.shape[1]
    for at in range(listed.shape[0]):
        row = listed[at]
        begin, end = content.indptr[row], content.indptr[row + 1]
        for k in range(dim):
            out[at, k] = own[at, k]
        for e in range(begin, end):
            f, x = content.columns[e], content.values[e]
            for k in range(dim):
                out[at, k] += x * weights[f, k]
        if unit:
            squares = np.float32(0.0)
            for k in range(dim):
                squares += out[at, k] * out[at, k]
            if squares > 0.0:
                scale = np.float32(1.0) / np.sqrt(squares)
                for k in range(dim):
                    out[at, k] *= scale

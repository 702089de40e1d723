"""Tables in several files as one array."""

import gc
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nearfar.runtime.joined_files import PAGE, Piece, read_joined, rows_a_page

CUTS = [[0, 512, 700], [0, 256, 256, 700], [0, 700], [0, 0, 512, 700, 700]]


@pytest.fixture
def pieces_of(tmp_path):
    """Writes the rows between cuts to files, each after a header; they are closed in the end."""
    with ExitStack() as files:

        def write(table, cuts, header=PAGE):
            found = []
            for i, (first, last) in enumerate(pairwise(cuts)):
                path = tmp_path / str(i)
                path.write_bytes(b"h" * header + table[first:last].tobytes() + b"more")
                file = files.enter_context(path.open("rb"))
                found.append(Piece(file, header, table.dtype, table[first:last].shape))
            return found

        yield write


def maps(folder):
    return Path("/proc/self/maps").read_text().count(f"{folder}/")


@pytest.mark.parametrize(
    "cuts", [[0, 512, 700], [0, 256, 256, 700], [0, 700], [0, 0, 512, 700, 700]]
)
def test_files_are_mapped_side_by_side_and_not_read(tmp_path, cuts, pieces_of):
    table = np.random.default_rng(0).normal(size=(700, 128)).astype(np.float32)
    pieces = pieces_of(table, cuts)
    found = read_joined(pieces, mapped=True)
    for piece in pieces:
        piece.file.close()
    assert maps(tmp_path) == np.count_nonzero(np.diff(cuts))
    assert np.array_equal(found, table)
    assert not found.flags.writeable
    part = found[300:]
    del found
    gc.collect()
    assert np.array_equal(part, table[300:])
    del part
    gc.collect()
    assert maps(tmp_path) == 0


@pytest.mark.parametrize(("cuts", "header"), [([0, 500, 700], PAGE), ([0, 512, 700], 72)])
def test_files_that_do_not_fit_pages_are_read(tmp_path, cuts, header, pieces_of):
    table = np.arange(700 * 128, dtype=np.float32).reshape(700, 128)
    found = read_joined(pieces_of(table, cuts, header), mapped=True)
    assert maps(tmp_path) == 0
    assert np.array_equal(found, table)


def test_without_a_map_they_are_read(pieces_of):
    table = np.arange(1024, dtype=np.int64).reshape(512, 2)
    found = read_joined(pieces_of(table, [0, 0, 100, 512]), mapped=False)
    found[0] = 7  # an array like any other
    assert np.array_equal(found[1:], table[1:])
    empty = read_joined(pieces_of(table, [0, 0, 0]), mapped=True)
    assert empty.shape == (0, 2)


def test_pieces_that_differ_or_end_too_early_are_refused(pieces_of):
    table = np.zeros((512, 2))
    one, two = pieces_of(table, [0, 256, 512])
    with pytest.raises(ValueError, match="differ in type or width"):
        read_joined([one, two._replace(dtype=np.dtype(np.float32))], mapped=False)
    with pytest.raises(ValueError, match="ends too early"):
        read_joined([one, two._replace(shape=(999, 2))], mapped=False)


@pytest.mark.parametrize("dim", [1, 2, 3, 9, 64, 100, 128, 300])
def test_rows_fill_whole_pages(dim):
    rows = rows_a_page(4 * dim)
    assert rows * 4 * dim % PAGE == 0
    assert all(n * 4 * dim % PAGE for n in range(1, rows, max(1, rows // 99)))

"""Search for the files of a data set.

The path of a recipe is the raw file itself, a zip archive with it, or a folder that contains the
file, the archive, or a folder with the file. Each file may be compressed (``.gz``, ``.bz2``,
``.xz``); if it exists in both forms, the uncompressed one is read.
"""

from __future__ import annotations

import lzma
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nearfar.errors import DataError
from nearfar.readers.lines import compression

_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""Errors raised for a damaged archive; a name that cannot be decoded raises a `ValueError`."""
ARCHIVES: Final = {".zip", ".whl"}
"""Suffixes of files that are opened as zip archives."""


@dataclass(frozen=True)
class Member:
    """A file of a data set."""

    file: Path
    """The file on disk; a copy if it was in an archive."""
    folder: Path
    """The folder of the file, or of the archive with it."""
    scratch: Path
    """The folder for files extracted from archives."""
    archive: Path | None = None
    """The archive that contains it, if any."""

    @property
    def name(self) -> str:
        """Its name in lower case, without the suffix of a compression."""
        return bare(self.file.name)

    def beside(self, pattern: str) -> Path | None:
        """Find another file in the same archive or, if it is not there, in the same folder.

        Parameters
        ----------
        pattern : str
            A regular expression for its whole `name`.
        """
        if self.archive is not None:
            inside = _in_archive(self.archive, pattern)
            if inside is not None:
                return _extracted(self.archive, inside, self.scratch)
        return _only(_entries(self.folder)[0], pattern, self.folder)


def bare(name: str) -> str:
    """Return a file name in lower case, without the suffix of a compression.

    Examples
    --------
    >>> bare("BX-Books.csv.gz")
    'bx-books.csv'
    """
    return name.lower().removesuffix(compression(Path(name)))


def find(path: Path, pattern: str, said: str, scratch: Path) -> Member:
    """Find the file with the interactions.

    Parameters
    ----------
    path : Path
        A folder, an archive or a file; a file that is not an archive is returned regardless of its
        name.
    pattern : str
        A regular expression for the whole name, in lower case and without the suffix of a
        compression.
    said : str
        The names in words, for the message.
    scratch : Path
        A folder for a file extracted from an archive.

    Raises
    ------
    DataError
        If there is no such file or several, or an archive is damaged.
    """
    if not os.path.exists(path):  # unlike Path.exists, it never raises
        raise DataError(f"There is no file or folder {str(path)!r}; check the path.")
    look = _in_folder if path.is_dir() else _in_file
    found = look(path, pattern, scratch)
    if found is None:
        raise DataError(
            f"{str(path)!r} contains no {said}; pass the file itself, or a folder or zip archive "
            "that contains it."
        )
    return found


def _in_folder(path: Path, pattern: str, scratch: Path) -> Member | None:
    here, folders = _entries(path)
    file = _only(here, pattern, path)
    if file is None:
        below = (file for folder in folders for file in _entries(folder)[0])
        file = _only(below, pattern, path)
    if file is not None:
        return Member(file, file.parent, scratch)
    archives = [file for file in here if file.suffix.lower() in ARCHIVES]
    found = [(archive, name) for archive in archives if (name := _in_archive(archive, pattern))]
    if len(found) > 1:
        raise _several(path, [f"{archive.name} ({name})" for archive, name in found])
    return _from_archive(*found[0], scratch) if found else None


def _in_file(path: Path, pattern: str, scratch: Path) -> Member | None:
    if path.suffix.lower() not in ARCHIVES:
        return Member(path, path.parent, scratch)
    name = _in_archive(path, pattern)
    return None if name is None else _from_archive(path, name, scratch)


def _from_archive(archive: Path, name: str, scratch: Path) -> Member:
    return Member(_extracted(archive, name, scratch), archive.parent, scratch, archive)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files and the folders in a folder."""
    try:
        entries = sorted(folder.iterdir())
        return [e for e in entries if e.is_file()], [e for e in entries if e.is_dir()]
    except OSError as error:
        raise DataError(
            f"The folder {str(folder)!r} cannot be read: {error}. Pass the path of the file itself."
        ) from error


def _only(files: Iterable[Path], pattern: str, where: Path) -> Path | None:
    """Return the file whose name matches; prefer an uncompressed one to a compressed one."""
    matching = [file for file in files if re.fullmatch(pattern, bare(file.name))]
    apart = {file.with_name(bare(file.name)) for file in matching}
    if len(apart) > 1:
        raise _several(where, [str(file.relative_to(where)) for file in matching])
    return min(matching, key=lambda file: len(file.name), default=None)


def _several(where: Path, names: Sequence[str]) -> DataError:
    return DataError(
        f"Several files in {str(where)!r} match: {', '.join(sorted(names))}; pass the path of one "
        "of them."
    )


def _in_archive(archive: Path, pattern: str) -> str | None:
    """Find the name of a member; of several, the one with the fewest folders above it."""
    with _opened(archive) as members:
        names = [name for name in members.namelist() if not name.endswith("/")]
    files = [Path(name) for name in names if re.fullmatch(pattern, bare(Path(name).name))]
    depth = min((len(file.parts) for file in files), default=0)
    try:
        chosen = _only((file for file in files if len(file.parts) == depth), pattern, Path())
    except DataError as error:
        raise _several(archive, [file.as_posix() for file in files]) from error
    return next((name for name in names if Path(name) == chosen), None)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; turn any error into a `DataError` that names the archive."""
    try:
        with zipfile.ZipFile(archive) as members:
            yield members
    except _DAMAGE as error:
        raise DataError(
            f"{str(archive)!r} is not a zip archive, is damaged, or cannot be unpacked: {error}. "
            "Get it again, or unpack it and pass the folder."
        ) from error


def _extracted(archive: Path, name: str, scratch: Path) -> Path:
    # the folder is named after the archive, so that messages about the file name both
    folder = Path(tempfile.mkdtemp(dir=scratch)) / archive.name
    folder.mkdir()
    target = folder / Path(name).name
    with _opened(archive) as members, members.open(name) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    return target

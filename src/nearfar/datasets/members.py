"""What the recipes share: where the files of a data set are, lines with dirt, checked columns.

A recipe is given the raw file itself, a zip archive with it, or a folder that has the file, the
archive, or a folder with the file. Each file may be compressed (``.gz``, ``.bz2``, ``.xz``); where
it is there both ways, the plain one is read.
"""

from __future__ import annotations

import lzma
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from nearfar.errors import DataError, EmptyDataError, MissingColumnError
from nearfar.readers.lines import compression, lines
from nearfar.readers.raw import REJECTED_SCHEMA, Raw

_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""What is raised over a damaged archive; a name in it that cannot be decoded is a `ValueError`."""
ARCHIVES: Final = {".zip", ".whl"}
"""Suffixes of what is opened as a zip archive."""
SHOWN: Final = 500
"""Characters of a rejected line that are kept."""
PATIENCE: Final = 1000
"""Unreadable lines, more than the readable ones, after which the rest is not looked at."""

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Member:
    """A file of a data set that was found."""

    file: Path
    """The file on disk; if it was in an archive, a copy of it."""
    folder: Path
    """The folder where it, or the archive with it, is."""
    scratch: Path
    """Where files from archives are put."""
    archive: Path | None = None
    """The archive it was in."""

    @property
    def name(self) -> str:
        """Its name in small letters, without the suffix of a compression."""
        return bare(self.file.name)

    def beside(self, pattern: str) -> Path | None:
        """Find another file in the same archive or, failing that, in the same folder.

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
    """Give a file name in small letters, without the suffix of a compression.

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
        If it is a file and no archive, it is the one, whatever its name.
    pattern : str
        A regular expression for the whole name, in small letters and without the suffix of a
        compression.
    said : str
        The names in words, for the message.
    scratch : Path
        Where it is put if it comes from an archive.

    Raises
    ------
    DataError
        If it is not there, or there are several of them; or an archive is damaged.
    """
    if not os.path.exists(path):  # unlike Path.exists, it never raises
        raise DataError(f"There is no file or folder {str(path)!r}; check the path.")
    look = _in_folder if path.is_dir() else _in_file
    found = look(path, pattern, scratch)
    if found is None:
        raise DataError(
            f"{str(path)!r} has no {said} in it; give the file itself, the folder that has it, or "
            "the zip archive with it."
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
            f"The folder {str(folder)!r} cannot be read: {error}. Give the path of the file itself."
        ) from error


def _only(files: Iterable[Path], pattern: str, where: Path) -> Path | None:
    """Pick the file whose name matches; the plain one of a plain and a compressed one."""
    matching = [file for file in files if re.fullmatch(pattern, bare(file.name))]
    apart = {file.with_name(bare(file.name)) for file in matching}
    if len(apart) > 1:
        raise _several(where, [str(file.relative_to(where)) for file in matching])
    return min(matching, key=lambda file: len(file.name), default=None)


def _several(where: Path, names: Sequence[str]) -> DataError:
    return DataError(
        f"Several files in {str(where)!r} could be meant: {', '.join(sorted(names))}; give the "
        "path of one of them."
    )


def _in_archive(archive: Path, pattern: str) -> str | None:
    """Find the name of a member; of several, that with the fewest folders above it."""
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
    """Open an archive; whatever goes wrong with it becomes a `DataError` that names it."""
    try:
        with zipfile.ZipFile(archive) as members:
            yield members
    except _DAMAGE as error:
        raise DataError(
            f"{str(archive)!r} is no zip archive, is damaged, or cannot be unpacked: {error}. "
            "Get it again, or unpack it and give the folder."
        ) from error


def _extracted(archive: Path, name: str, scratch: Path) -> Path:
    # the folder has the name of the archive, so that messages about the file name both
    folder = Path(tempfile.mkdtemp(dir=scratch)) / archive.name
    folder.mkdir()
    target = folder / Path(name).name
    with _opened(archive) as members, members.open(name) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    return target


class MalformedLineError(ValueError):
    """A line is not what it must be; the message is the reason."""


class Sieve:
    """The lines of one file: those that can be read, and a list of those that cannot.

    Parameters
    ----------
    path : Path
        The file.
    form : str
        What a line must be, for the message: ``'"user";"ISBN";"rating"'``.
    prefix : str
        Put before each reason; the name of the file, if it is not the main one.
    """

    def __init__(self, path: Path, form: str, prefix: str = "") -> None:
        self._path = path
        self._form = form
        self._prefix = prefix
        self._n_good = 0
        self._left_out: list[int] = []
        self._rejected: list[tuple[int, str, str]] = []

    def through(
        self,
        parse: Callable[[str], Parsed | None],
        encoding: str = "utf-8",
        errors: str = "strict",
        header: str = "",
    ) -> Iterator[Parsed]:
        """Give what `parse` makes of each line.

        Parameters
        ----------
        parse : callable
            Gets the text of a line that is not blank. None leaves it out, although it is good;
            `MalformedLineError` puts it among the rejected.
        encoding, errors : str
            As of `bytes.decode`; a line that cannot be decoded is rejected.
        header : str
            How a header starts, in small letters, which the file may have above its first line.

        Raises
        ------
        DataError
            If the file cannot be read, or more than half of its lines are malformed.
        EmptyDataError
            If it has none.
        """
        above = header
        for number, line in lines(self._path):
            if not line.strip():
                self._left_out.append(number)
                continue
            try:
                text = line.decode(encoding, errors)
                if above and text.lower().startswith(above):
                    self._left_out.append(number)
                    continue
                row = parse(text)
            except UnicodeDecodeError:
                self._reject(number, f"is not {encoding}", line.decode(encoding, "replace"))
            except MalformedLineError as error:
                self._reject(number, str(error), line.decode(encoding, "replace"))
            else:
                self._n_good += 1
                if row is None:
                    self._left_out.append(number)
                else:
                    yield row
            finally:
                above = ""  # whatever looks like it further below is a line like others
        self._check(0)
        if not self._n_good:
            raise EmptyDataError(f"{str(self._path)!r} has no lines; get the file again.")

    def where(self, row: int) -> str:
        """Say on which line a row, counted from 0 among the good ones, is."""
        number = row + 1
        for left_out in self._left_out:  # in order
            if left_out > number:
                break
            number += 1
        return f"line {number:,} of {str(self._path)!r}"

    @property
    def rejected(self) -> pl.DataFrame:
        """The malformed lines so far, as of `Raw.rejected`."""
        return pl.DataFrame(self._rejected, schema=REJECTED_SCHEMA, orient="row")

    def _reject(self, number: int, reason: str, text: str) -> None:
        self._left_out.append(number)
        self._rejected.append((number, self._prefix + reason, text[:SHOWN]))
        self._check(PATIENCE)

    def _check(self, patience: int) -> None:
        n_bad = len(self._rejected)
        if n_bad > max(self._n_good, patience):
            number, reason, text = self._rejected[0]
            raise DataError(
                f"{n_bad:,} of the first {n_bad + self._n_good:,} lines of {str(self._path)!r} are "
                f"malformed, the first of them line {number:,} ({reason}): {text[:80]!r}. "
                f"Lines must be {self._form}; check that it is the right file."
            )


def described(
    path: Path,
    form: str,
    parse: Callable[[str], Sequence[object]],
    columns: Sequence[str],
    encoding: str = "utf-8",
    header: str = "",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a file that says something about each item.

    Parameters
    ----------
    path : Path
        The file.
    form, parse, encoding, header
        As of `Sieve`; a row has the item first.
    columns : sequence of str
        Names of the fields after the item. All are text but ``price``.

    Returns
    -------
    DataFrame
        ``item_id`` and `columns`; each item once.
    DataFrame
        The malformed lines, as of `Raw.rejected`; also those that describe an item once more. Their
        reasons name the file.
    """
    seen: set[object] = set()

    def once(text: str) -> Sequence[object]:
        row = parse(text)
        if row[0] in seen:
            raise MalformedLineError(f"describes {row[0]!r} once more")
        seen.add(row[0])
        return row

    sieve = Sieve(path, form, f"{path.name}: ")
    schema = {name: pl.Float64 if name == "price" else pl.String for name in ("item_id", *columns)}
    rows = list(sieve.through(once, encoding, header=header))
    return pl.DataFrame(rows, schema=schema, orient="row"), sieve.rejected


def named(raw: Raw, columns: dict[str, str], path: Path) -> pl.LazyFrame:
    """Select columns by their name in the source.

    Parameters
    ----------
    raw : Raw
        As it was read.
    columns : dict of str to str
        The new name of each column, and that in the source; what stands after a ``:`` in the latter
        (``user_id:token``) does not count.
    path : Path
        For the message.

    Raises
    ------
    MissingColumnError
        If one is not there; lists those there are.
    """
    there = raw.rows.collect_schema().names()
    short = {name.split(":")[0] if ":" in name else name: name for name in there}
    for source in columns.values():
        if source not in short:
            raise MissingColumnError(
                f"{str(path)!r} must have the columns {', '.join(columns.values())}; got "
                f"{', '.join(there)}. Check that it is the right file."
            )
    return raw.rows.select(pl.col(short[source]).alias(new) for new, source in columns.items())


def placed(raw: Raw, places: dict[str, int], n_columns: int, path: Path) -> pl.LazyFrame:
    """Select columns of a file without a header by their places, counted from 1.

    Parameters
    ----------
    raw : Raw
        As it was read.
    places : dict of str to int
        The new name of each column and its place.
    n_columns : int
        How many the file must have.
    path : Path
        For the message.

    Raises
    ------
    DataError
        If it has another number of columns.
    """
    there = raw.rows.collect_schema().names()
    if len(there) != n_columns:
        raise DataError(
            f"Lines of {str(path)!r} must have {n_columns} fields ({', '.join(places)}); got "
            f"{len(there)}. Check that it is the right file."
        )
    return raw.rows.select(pl.col(f"column_{place}").alias(new) for new, place in places.items())


def checked(
    rows: pl.LazyFrame, where: Callable[[int], str], path: Path, *, counts: bool = False
) -> pl.LazyFrame:
    """Check the rows of a strict source, and give their columns the right types.

    Parameters
    ----------
    rows : LazyFrame
        The columns user, item, value and, where there is one, time. Read once or twice.
    where : callable
        Says where a row is, for the message.
    path : Path
        The file, for the message when there are no rows.
    counts : bool
        Whether values must be whole numbers of at least 1.

    Returns
    -------
    LazyFrame
        ``value`` is Int64 if all are whole numbers, else Float64; ``time`` is Int64.

    Raises
    ------
    DataError
        At the first id that is missing or no text, value that is no finite number, or time that is
        no whole number.
    EmptyDataError
        If there are no rows.
    """
    schema = rows.collect_schema()
    good: dict[str, pl.Expr] = {}
    for name, dtype in schema.items():
        if name in {"user", "item"}:
            good[name] = pl.col(name) != "" if dtype == pl.String else pl.lit(value=False)
        elif dtype == pl.Boolean:
            good[name] = pl.lit(value=False)
        else:
            good[name] = (_whole if name == "time" or counts else _real)(name).is_not_null()
    if counts:
        good["value"] &= _whole("value") >= 1
    found = rows.select(
        pl.len().alias("rows"),
        _whole("value").is_not_null().all().alias("whole"),
        *(fits.fill_null(value=False).all().alias(name) for name, fits in good.items()),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    if not found["rows"]:
        raise EmptyDataError(f"{str(path)!r} has no rows; get the file again.")
    for name, fits in good.items():
        if not found[name]:
            raise _bad(rows, name, fits, where, counts=counts)
    value = _whole("value") if found["whole"] else _real("value")
    times = [_whole("time")] if "time" in schema else []
    return rows.with_columns(value, *times)


def _real(name: str) -> pl.Expr:
    """Give the finite number in a column, of text or numbers, or null."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _whole(name: str) -> pl.Expr:
    """Give the whole number in a column, of text or numbers, also if written ``5.0``, or null."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    exact = (number == number.round()) & (number.abs() <= 2**53)
    as_float = pl.when(exact).then(number).cast(pl.Int64, strict=False)
    as_integer = pl.col(name).cast(pl.String).cast(pl.Int64, strict=False)
    return pl.coalesce(as_integer, as_float).alias(name)


def _bad(
    rows: pl.LazyFrame,
    name: str,
    fits: pl.Expr,
    where: Callable[[int], str],
    *,
    counts: bool,
) -> DataError:
    first = rows.select(
        row=pl.int_range(pl.len()), value=pl.col(name), fits=fits.fill_null(value=False)
    ).filter(~pl.col("fits")).head(1).collect().row(0, named=True)  # fmt: skip
    number = "a whole number of at least 1" if counts else "a finite number"
    must = {"value": number, "time": "a whole number of seconds since 1970"}.get(
        name, "an id as text"
    )
    place = where(first["row"])
    return DataError(
        f"The {name} of {place} must be {must}; got {first['value']!r}. Correct or remove the line."
    )

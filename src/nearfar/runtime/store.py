"""Folders on disk: arrays and frames with a manifest, written atomically, without pickle.

A folder holds payload files and the manifest ``nearfar.json``, which lists them. Payload files are
safetensors for arrays, Parquet for frames, Markdown for texts, and the own formats of libraries;
their names contain the first digits of their SHA-256. Payload files are written first, each under a
temporary name, synchronised and renamed. The manifest is written last, with a single rename, and
only then does the new content replace the old. A reader, also after a crash, finds either the old
or the new content, complete. Files that are no longer listed are removed afterwards.

Only one process at a time may write to a folder; any number may read it meanwhile. Several may
write one together (`keep_part`): tables that are too large for one process are cut
into files whose entries end in ``_part0``, ``_part1``, ..., and are read as one again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as parse_arrays

from nearfar.errors import StoreError
from nearfar.runtime.arrays import Arrays
from nearfar.runtime.checks import local_path
from nearfar.runtime.forks import check_fork
from nearfar.runtime.joined_files import PAGE, Piece, read_joined
from nearfar.version import VERSION

Bytes = bytes | memoryview
Writer = Callable[[Path], None]
Kept = dict[str, Any]
"""What the manifest says of a file: its name, its size and its SHA-256."""

FORMAT: Final = 1
"""Version of the layout that this code writes and reads."""
MANIFEST: Final = "nearfar.json"
_TEMPORARY: Final = re.compile(r"\.nearfar-[0-9a-f]{32}\.tmp")
_PAYLOAD: Final = re.compile(r"[a-z][a-z0-9_]*-[0-9a-f]{12}\.(safetensors|parquet|faiss|md)")
_ENTRY: Final = re.compile(r"[a-z][a-z0-9_]*")
_CUT: Final = re.compile(r"(.+)_part(\d+)")
_TENSOR_TYPES: Final = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
_UNREADABLE: Final = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, SafetensorError,
    pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip
"""The exceptions that are raised when damaged payload is read."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Folder:
    """The content of a folder."""

    meta: dict[str, Any]
    """The JSON part; tuples are returned as lists."""
    arrays: dict[str, Arrays]
    """The arrays of each safetensors file, by name."""
    frames: dict[str, pl.DataFrame]
    """The content of the Parquet files."""
    files: dict[str, Path]
    """The paths of the other files, whose checksums were verified when the folder was loaded."""
    texts: dict[str, str]
    """The content of the Markdown files."""


def save_folder(
    path: str | PathLike[str],
    *,
    kind: str,
    meta: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]] = _NOTHING,
    frames: Mapping[str, pl.DataFrame] = _NOTHING,
    files: Mapping[str, Writer] = _NOTHING,
    texts: Mapping[str, str] = _NOTHING,
    cut: Mapping[str, Kept] = _NOTHING,
) -> None:
    """Write a folder atomically: at every moment it holds either the old or the new content.

    Parameters
    ----------
    path : path
        The folder: new, empty, or of the same kind, in which case its content is replaced.
    kind : str
        The kind of content, such as "model"; `load_folder` checks it.
    meta : mapping
        Values that JSON can represent.
    arrays : mapping of mappings of arrays
        Each entry becomes one safetensors file. Names are lower-case words: letters, digits, ``_``.
    frames : mapping of DataFrames
        Each entry becomes one Parquet file. Names must differ from those of `arrays`.
    files : mapping of callables
        Each is called with a path and writes one faiss file there, or raises OSError. Names must
        differ from the others.
    texts : mapping of str
        Each entry becomes one Markdown file.
    cut : mapping of dicts
        Files that processes have written by `keep_part`, each with what that has returned.

    Raises
    ------
    StoreError
        The folder holds something else, a file of `cut` is missing, the content cannot be
        represented on disk, or writing fails. In each case the folder is left unchanged.
    """
    folder = local_path(path)
    if frames:
        check_fork()
    _check_names(arrays, frames, files, texts, cut)
    _check_types(frames)
    tensors = {name: _safetensors(name, tables) for name, tables in arrays.items()}
    check_replaceable(folder, kind=kind)
    manifest = _new_manifest(kind, meta)  # before anything is written
    for entry, part in cut.items():
        _check_there(folder, entry, part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = dict(cut)
        kept |= {
            name: _keep_parts(folder, name, parts, "safetensors") for name, parts in tensors.items()
        }
        kept |= {name: _keep_frame(folder, name, frame) for name, frame in frames.items()}
        kept |= {name: _keep_file(folder, name, write) for name, write in files.items()}
        kept |= {
            name: _keep_parts(folder, name, [text.encode()], "md") for name, text in texts.items()
        }
        _commit(folder, manifest, kept)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        _sweep(folder)
    _sync_folder(folder)


def _new_manifest(kind: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    made = {"kind": kind, "format": FORMAT, "nearfar": VERSION, "files": {}, "meta": meta}
    manifest: dict[str, Any] = json.loads(_json(made))
    return manifest


def _commit(folder: Path, manifest: dict[str, Any], kept: Mapping[str, Kept]) -> None:
    """Write the manifest with its files, with which the new content replaces the old."""
    manifest["files"] = dict(kept)
    manifest["seal"] = _seal(manifest)
    _sync_folder(folder)
    _write(folder / MANIFEST, [_json(manifest)])


def _not_written(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Writing {str(folder)!r} failed: {error}. Its content is unchanged; check the free "
        "space and the permissions there."
    )


def keep_part(
    path: str | PathLike[str],
    entry: str,
    tables: Mapping[str, npt.NDArray[Any]],
    *,
    kind: str,
    aligned: bool = False,
) -> Kept:
    """Write one safetensors file of a folder that several processes write, each with its entry.

    The content of the folder stays as it was until `save_folder` is called with all of them.

    Parameters
    ----------
    path : path
    entry : str
        A lower-case word, as in `save_folder`; every process has another. Tables of entries that
        end in ``_part0``, ``_part1``, ... are read as one.
    tables : mapping of arrays
    kind : str
    aligned : bool
        Begin the data on a page, so that a single table can be mapped next to those of other parts
        (`nearfar.runtime.joined_files`).

    Returns
    -------
    dict
        What the manifest says of the file.

    Raises
    ------
    StoreError
        The folder holds something else, or writing fails.
    """
    folder = local_path(path)
    _check_names({entry: tables})
    parts = _safetensors(entry, tables, PAGE if aligned else 8)
    check_replaceable(folder, kind=kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = _keep_parts(folder, entry, parts, "safetensors")
        _sync_folder(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    return kept


def part_of(entry: str, digest: bytes, size: int) -> Kept:
    """Return what `keep_part` returned in another process, given the file's SHA-256 and size."""
    name = digest.hex()
    return {"file": _named(entry, name, "safetensors"), "size": size, "sha256": name}


def _check_there(folder: Path, entry: str, part: Kept) -> None:
    """Refuse a file of `keep_part` that is not there."""
    if not (folder / str(part["file"])).is_file():
        raise StoreError(
            f"{str(folder)!r} lacks {part['file']!r}, which another process has written there"
            f" as {entry!r}; give a folder on a disk that all processes share."
        )


def load_folder(path: str | PathLike[str], *, kind: str, mmap: bool = False) -> Folder:
    """Read a folder that `save_folder` wrote, and verify it.

    Parameters
    ----------
    path : path
        The folder.
    kind : str
        The kind that the content must have.
    mmap : bool
        Map the arrays into memory, read-only, instead of reading them.

    Raises
    ------
    StoreError
        The folder is missing, or has another kind or a newer format, or one of its files is missing
        or damaged. The message names the file and the remedy.
    """
    folder = local_path(path)
    manifest = _manifest(folder, kind)
    while True:
        try:
            return _contents(folder, manifest, mmap)
        except StoreError:
            # A writer may have replaced the content between the manifest and its files.
            newer = _manifest(folder, kind)
            if newer == manifest:
                raise
            manifest = newer


def check_replaceable(path: str | PathLike[str], *, kind: str) -> None:
    """Check that `save_folder` can write to a path, before the work that is to be saved.

    Raises
    ------
    StoreError
        The path is a file, or a folder that holds something else.
    """
    folder = local_path(path)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is a file; give the path of a folder.")
    if not folder.is_dir():
        return
    strange = [p.name for p in folder.iterdir() if not _is_ours(p.name)]
    if (folder / MANIFEST).exists():
        found = _parsed(folder).get("kind")
        if found != kind:
            raise StoreError(
                f"{str(folder)!r} holds a nearfar {found}, not {_a(kind)}; choose another folder "
                "or remove it first."
            )
    elif strange:
        raise StoreError(
            f"{str(folder)!r} is not empty and not a nearfar folder (it has {strange[0]!r}); "
            "choose another folder."
        )


@contextmanager
def scratch(path: str | PathLike[str]) -> Iterator[Path]:
    """Create a temporary folder inside `path`, on the same disk, for use until `path` is saved.

    It is removed at the end, as is `path` if it was created for this and nothing was saved. Files
    left by a killed process are removed the next time that a process saves there.
    """
    folder = local_path(path)
    temporary = _temporary(folder)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise StoreError(
            f"Writing {str(folder)!r} failed: {error}. Check the free space and the permissions "
            "there."
        ) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # not empty
            folder.rmdir()


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _check_names(*entries: Iterable[str]) -> None:
    names = [name for some in entries for name in some]
    twice = {name for name in names if names.count(name) > 1}
    wrong = [name for name in names if not _ENTRY.fullmatch(name)]
    if twice or wrong:
        raise StoreError(f"Names of entries must be lower-case words, each used once; got "
                         f"{sorted(twice) + wrong}.")  # fmt: skip


def _check_types(frames: Mapping[str, pl.DataFrame]) -> None:
    for name, frame in frames.items():
        for column, dtype in frame.schema.items():
            if dtype == pl.Object:
                raise StoreError(
                    f"The frame {name!r} cannot be saved: {column!r} holds Python objects."
                )


def _safetensors(name: str, tables: Mapping[str, npt.NDArray[Any]], align: int = 8) -> list[Bytes]:
    """Return a safetensors file in parts: the header, then the memory of each array, not copied.

    The library's own writer makes a second copy of all arrays. The format is the length of the
    header in 8 bytes, the header as JSON, padded with spaces so that the data begin at a multiple
    of `align`, and the data.
    """
    header: dict[str, Any] = {}
    parts: list[Bytes] = []
    end = 0
    for key, table in sorted(tables.items(), key=lambda entry: (-entry[1].itemsize, entry[0])):
        if table.dtype.name not in _TENSOR_TYPES:
            raise StoreError(
                f"The arrays of {name!r} cannot be saved: {key!r} is of type {table.dtype}."
            )
        ordered = np.asarray(table, table.dtype.newbyteorder("<"), order="C")
        begin, end = end, end + ordered.nbytes
        header[key] = {
            "dtype": _TENSOR_TYPES[table.dtype.name],
            "shape": table.shape,
            "data_offsets": [begin, end],
        }
        parts.append(ordered.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % align)
    return [len(text).to_bytes(8, "little") + text, *parts]


def _keep_parts(
    folder: Path, entry: str, parts: Sequence[Bytes], suffix: str
) -> dict[str, str | int]:
    """Write a file from parts in memory; return its entry in the manifest."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    name = _named(entry, digest.hexdigest(), suffix)
    _write(folder / name, parts)
    return {"file": name, "size": sum(map(len, parts)), "sha256": digest.hexdigest()}


def _keep_frame(folder: Path, entry: str, frame: pl.DataFrame) -> dict[str, str | int]:
    """Write a Parquet file without building it in memory; return its entry in the manifest."""
    temporary = _temporary(folder)
    try:
        frame.write_parquet(temporary, compression_level=1)  # zstd; as small as 3, and quicker
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise StoreError(f"The frame {entry!r} cannot be saved: {error}.") from error
    return _keep(folder, entry, temporary, "parquet")


def _keep_file(folder: Path, entry: str, write: Writer) -> dict[str, str | int]:
    """Call `write` to create a file; return its entry in the manifest."""
    temporary = _temporary(folder)
    write(temporary)
    return _keep(folder, entry, temporary, "faiss")


def _keep(folder: Path, entry: str, temporary: Path, suffix: str) -> dict[str, str | int]:
    digest = _sha256(temporary)
    name = _named(entry, digest, suffix)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, folder / name)
    return {"file": name, "size": (folder / name).stat().st_size, "sha256": digest}


def _named(entry: str, digest: str, suffix: str) -> str:
    """Return a file name derived from the content, so different content never overwrites it."""
    return f"{entry}-{digest[:12]}.{suffix}"


def _temporary(folder: Path) -> Path:
    return folder / f".nearfar-{uuid.uuid4().hex}.tmp"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _json(manifest: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"`meta` must be representable as JSON: {error}.") from error
    return text.encode()


def _seal(manifest: Mapping[str, Any]) -> str:
    """Hash the content of a manifest except its seal."""
    return sha256(json.dumps({**manifest, "seal": None}, sort_keys=True).encode()).hexdigest()


def _check_seal(file: Path, manifest: Mapping[str, Any]) -> None:
    try:
        whole = manifest.get("seal") == _seal(manifest)
    except RecursionError:
        whole = False
    if not whole:
        raise StoreError(
            f"{str(file)!r} was changed after it was written: restore it, or remove the folder and "
            "save it again."
        )


def _is_ours(name: str) -> bool:
    return bool(name == MANIFEST or _TEMPORARY.fullmatch(name) or _PAYLOAD.fullmatch(name))


def _listed(folder: Path) -> set[str]:
    try:
        return {str(listed["file"]) for listed in _parsed(folder)["files"].values()}
    except (StoreError, KeyError, TypeError, AttributeError):
        return set()


def _write(target: Path, parts: Sequence[Bytes]) -> None:
    temporary = _temporary(target.parent)
    with temporary.open("xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no way to synchronise a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove nearfar's files that the manifest does not list; skip those in use."""
    kept = {MANIFEST, *_listed(folder)}
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in kept and _is_ours(file.name):
            try:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            except OSError:
                continue


def _parsed(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        what = "has no nearfar.json" if folder.is_dir() else "does not exist"
        raise StoreError(f"{str(folder)!r} {what}; give a folder that nearfar has saved.")
    try:
        manifest = json.loads(file.read_bytes())
        if not isinstance(manifest, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{str(file)!r} is damaged ({error}); remove the folder and save it again."
        ) from error
    return manifest


def _manifest(folder: Path, kind: str) -> dict[str, Any]:
    manifest = _parsed(folder)
    file, version, found = str(folder / MANIFEST), manifest.get("format"), manifest.get("kind")
    if isinstance(version, bool) or not isinstance(version, int):
        raise StoreError(
            f"{file!r} names no format version; it is not a nearfar manifest. Give the path of "
            "another folder."
        )
    if version != FORMAT:
        remedy = "Upgrade nearfar" if version > FORMAT else "Remove the folder and save it again"
        raise StoreError(
            f"{file!r} has format {version}, written by nearfar {manifest.get('nearfar')}; this "
            f"nearfar {VERSION} reads format {FORMAT}. {remedy}."
        )
    if found != kind:
        raise StoreError(
            f"{str(folder)!r} holds a nearfar {found}, not {_a(kind)}; give the path of another "
            "folder."
        )
    _check_seal(folder / MANIFEST, manifest)
    return manifest


def _contents(folder: Path, manifest: Mapping[str, Any], mmap: bool) -> Folder:
    arrays: dict[str, Arrays] = {}
    frames: dict[str, pl.DataFrame] = {}
    files: dict[str, Path] = {}
    texts: dict[str, str] = {}
    try:
        listed = [(name, dict(entry)) for name, entry in manifest["files"].items()]
        meta = dict(manifest["meta"])
        for name, parts in _cut(dict(listed)).items():
            arrays[name] = _joined(folder, parts, mmap)
        for name, entry in listed:
            if _CUT.fullmatch(name):
                continue
            with _verified(folder, entry["file"], entry["size"], entry["sha256"]) as file:
                if entry["file"].endswith(".safetensors"):
                    arrays[name] = _mapped(file) if mmap else parse_arrays(file.read())
                elif entry["file"].endswith(".parquet"):
                    check_fork()
                    frames[name] = pl.read_parquet(file)
                elif entry["file"].endswith(".md"):
                    texts[name] = file.read().decode()
                else:
                    files[name] = folder / entry["file"]
    except _UNREADABLE as error:
        raise StoreError(
            f"{str(folder / MANIFEST)!r} is damaged ({error!r}); remove the folder and save it "
            "again."
        ) from error
    return Folder(meta, arrays, frames, files, texts)


def _cut(listed: Mapping[str, Kept]) -> dict[str, list[Kept]]:
    """Return the entries of each table that is cut into files, in order."""
    found: dict[str, dict[int, Kept]] = {}
    for name, entry in listed.items():
        if (of := _CUT.fullmatch(name)) is not None:
            found.setdefault(of[1], {})[int(of[2])] = entry
    return {name: [parts[i] for i in range(len(parts))] for name, parts in found.items()}


def _joined(folder: Path, parts: Sequence[Kept], mmap: bool, *, verify: bool = True) -> Arrays:
    """Read, or map side by side, tables that are cut into files."""
    with ExitStack() as opened:
        pieces: dict[str, list[Piece]] = {}
        for entry in parts:
            how = entry["file"], entry["size"], entry["sha256"]
            file = opened.enter_context(
                _verified(folder, *how) if verify else (folder / how[0]).open("rb")
            )
            for name, piece in _pieces(file).items():
                pieces.setdefault(name, []).append(piece)
        return {name: read_joined(each, mapped=mmap) for name, each in pieces.items()}


def map_parts(path: str | PathLike[str], kept: Sequence[Kept]) -> Arrays:
    """Map the tables of files that `keep_part` has just written, without reading them.

    Raises
    ------
    StoreError
        A file is missing or damaged.
    """
    folder = local_path(path)
    try:
        return _joined(folder, kept, mmap=True, verify=False)
    except (*_UNREADABLE, OSError) as error:
        raise StoreError(
            f"The files just written to {str(folder)!r} cannot be mapped: {error}. Give a folder"
            " on a disk that all processes share."
        ) from error


def _mapped(file: BinaryIO) -> Arrays:
    """Map the arrays of a safetensors file."""
    found: Arrays = {}
    for name, (_, begin, dtype, shape) in _pieces(file).items():
        if 0 in shape:  # an empty array cannot be mapped
            found[name] = np.empty(shape, dtype)
        else:
            found[name] = np.memmap(file, dtype, "r", begin, shape)
    return found


def _pieces(file: BinaryIO) -> dict[str, Piece]:
    """Return where the arrays of a safetensors file lie; the library checks that it is inside."""
    with safe_open(file.name, framework="numpy") as checked:
        names = set(checked.keys())
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    found, types = {}, {known: name for name, known in _TENSOR_TYPES.items()}
    for name in names:
        entry = header[name]
        dtype, shape = np.dtype(types[entry["dtype"]]).newbyteorder("<"), tuple(entry["shape"])
        found[name] = Piece(file, 8 + length + entry["data_offsets"][0], dtype, shape)
    return found


@contextmanager
def _verified(folder: Path, name: Any, size: Any, digest: Any) -> Iterator[BinaryIO]:
    """Open a file and verify it; later reads use the same open file, even if it is replaced."""
    if not isinstance(name, str) or not _PAYLOAD.fullmatch(name):
        raise StoreError(
            f"{str(folder / MANIFEST)!r} lists {name!r}, which is not a plain name of a nearfar "
            "file; it was not written by nearfar."
        )
    path = folder / name
    try:
        with path.open("rb") as file:
            found, sha = os.fstat(file.fileno()).st_size, file_digest(file, "sha256").hexdigest()
            if found != size:
                raise StoreError(
                    f"{str(path)!r} must have {size} bytes; it has {found}. It was truncated or "
                    "changed: restore it or save the folder again."
                )
            if sha != digest:
                raise StoreError(
                    f"{str(path)!r} was changed after it was written (its SHA-256 differs): "
                    "restore it or save the folder again."
                )
            file.seek(0)
            yield file
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{str(path)!r} cannot be read ({error.strerror}); restore it or save the folder again."
        ) from error

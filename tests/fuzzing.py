"""Files that are wrong in every way, and what must become of each.

A `Case` is made from the name of a target and a number, and from nothing else: files that were
written well, then spoilt. What must become of it says an oracle of the target: plain Python that
looks at the same bytes and gives the only right content, or raises `InvalidError`. `examine` reads
the files with nearfar and raises a `FindingError` if it reads something else, refuses what can be
read, or refuses with anything but an error of nearfar that names the file, the line and a remedy.

To replay a finding: ``examine(case("text", 3273), folder)``.
"""

import ast
import bz2
import csv
import gzip
import html
import io
import json
import lzma
import random
import re
import shutil
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from nearfar import Interactions, readers, tables
from nearfar.datasets.recipes import RECIPES
from nearfar.errors import NearfarError
from nearfar.prepare import prepare
from nearfar.readers import spool
from nearfar.readers import text as text_reader
from nearfar.rules import Rules

NO_RULES = Rules()


class InvalidError(Exception):
    """What is written cannot be read; the message must name one of the lines, if there are any."""

    def __init__(self, why, *lines, of_rules=False):
        super().__init__(why)
        self.lines = set(lines)
        self.of_rules = of_rules


class FindingError(AssertionError):
    """Something is wrong with a reader, or with its oracle."""


@dataclass(frozen=True)
class Case:
    """Files, how they are read, and what was done to them."""

    target: str
    seed: int
    files: dict[str, bytes]
    given: str
    """The file that is read; the folder, if empty."""
    form: dict = field(default_factory=dict)
    stage: str = "scan"
    rules: Rules = NO_RULES
    changes: tuple[str, ...] = ()
    original: object = None
    """For files that are not text, the content before they were spoilt."""

    def __str__(self):
        shown = {name: data[:300] for name, data in self.files.items()}
        return (
            f"case({self.target!r}, {self.seed}): {self.stage} of {self.given!r} with {self.form} "
            f"and {self.rules}, after {', '.join(self.changes) or 'nothing'}\n{shown}"
        )


@dataclass(frozen=True)
class Right:
    """The contents that are right, and whether an error would be too."""

    contents: list
    refusable: bool = False
    n_rows: int | None = None
    """Any other content will do, too, if it has so many rows."""


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    make: Callable
    expect: Callable
    observe: Callable
    line_by_line: bool = True


# --- what is done to files

IDS = [
    "a,b", "a;b", "a\tb", "a|b", "a::b", "a:b", '"', '""', 'a"b', '"a"', "'", "a\nb", "a\r\nb",
    "a\rb", "", " ", " a ", "é", "🎬", "e\u0301", "x\0y", "\ufeff", "\x1a", "\x1ae", "\x1f", "\x85",
    "\u2028", "NaN", "null", "None", "\\N", "#", "=1+1", "007", "1e3", "x" * 3000, "&amp;", "\\",
    '\\"', "true", "user", "userId", "[1]", "{}",
]  # fmt: skip
NUMBERS = [
    "", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-0", "-0.0", "+5", "007", " 5", "5 ",
    "1_000", "٣", "0x10", "9" * 30, "5.0", "1e3", ".5", "5.", "five", "-2", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "1,5", "--5", "1e", "e5", ".", "+", "5\t", "true",
    "0", "1e-400", "1E5", "4.5", "1e300", "5f", "\u00a05", "1" * 400, "null",
]  # fmt: skip
BYTES = [
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b'""', b",", b"\t", b";", b"|", b":", b"::", b" ",
    b"\\", b"'", b"\xff", b"\xfe", b"\xe9", b"\xc3", b"\xef\xbb\xbf", b"\xf0\x9f\x8e\xac", b"\x1a",
    b"\x1f", b"\x1ae", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"{", b"}", b"[",
    b"NaN", b"inf", b"1e999", b"\\ud800", b"-", b".", b"#", b"\x0b", b"\x0c", b"<SEP>", b"&amp;",
    b"[" * 20_000, b"x" * 150_000, b"9" * 5000,
]  # fmt: skip
PACKERS = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


class Spoiler:
    """Draws from one random stream, and keeps a list of what was done."""

    def __init__(self, rng):
        self.rng = rng
        self.changes = []

    def odds(self, chance):
        return self.rng.random() < chance

    def note(self, change):
        self.changes.append(change)

    def cells(self, rows, kinds):
        """Put strange values into some cells of rows of text; `kinds` has "i" or "n" a column."""
        while self.odds(0.3):
            row = self.rng.randrange(len(rows))
            column = self.rng.randrange(len(kinds))
            value = self.rng.choice(IDS if kinds[column] == "i" else NUMBERS)
            rows[row][column] = value
            self.note(f"{value[:20]!r} in cell {row}, {column}")

    def lines(self, lines):
        """Repeat, drop, swap, cut up or lengthen some lines."""
        while lines and self.odds(0.2):
            at, what = self.rng.randrange(len(lines)), self.rng.randrange(6)
            line = lines[at]
            if what == 0:
                lines.insert(at, line)
            elif what == 1:
                del lines[at]
            elif what == 2:
                lines.insert(at, line[:0])
            elif what == 3:
                lines[at] = line[: self.rng.randrange(len(line) + 1)]
            elif what == 4:
                lines[at] = line + line
            else:
                lines.insert(0, lines.pop(at))
            self.note(("twice", "no", "empty before", "cut", "doubled", "first")[what] + f" {at}")

    def joined(self, lines):
        """Write lines with one kind of line end or with several; the last may be without."""
        ends = self.rng.choice([["\n"], ["\n"], ["\r\n"], ["\n", "\r\n"]])
        if self.odds(0.02):
            ends = ["\r"]
        text = "".join(line + self.rng.choice(ends) for line in lines)
        return text[:-1] if text and self.odds(0.1) else text

    def encoded(self, text, encoding):
        """Write in the encoding, or rarely in another one."""
        if self.odds(0.05):
            encoding = self.rng.choice(["latin-1", "utf-16", "utf-8-sig", "cp1252", "utf-16-le"])
            self.note(f"written as {encoding}")
        return text.encode(encoding, "replace")

    def bytes(self, data, chance=0.35):
        """Flip, insert, remove, repeat or cut off bytes."""
        while self.odds(chance):
            at = self.rng.randrange(len(data) + 1)
            end, what = at + self.rng.choice([1, 1, 2, 8, 40]), self.rng.randrange(9)
            if what < 3 and at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << self.rng.randrange(8))]) + data[at + 1 :]
            elif what < 5:
                piece = self.rng.choice(BYTES)
                data = data[:at] + piece + data[at:]
                what = f"{piece[:12]!r} at"
            elif what == 5:
                data = data[:at] + data[end:]
            elif what == 6:
                data = data[:at] + data[at:end] + data[at:]
            elif what == 7:
                data = data[:at]
            elif self.odds(0.2):
                data = b""
            self.note(f"{what} {at}")
        return data

    def packed(self, data, suffix):
        """Compress, in one or in two streams, and rarely spoil the result."""
        if not suffix:
            return data
        cut = self.rng.randrange(len(data) + 1)
        pack = PACKERS[suffix]
        whole = pack(data[:cut]) + pack(data[cut:]) if self.odds(0.5) else pack(data)
        return self.bytes(whole, 0.2)

    def suffix(self):
        return self.rng.choice(["", "", "", "", "", ".gz", ".bz2", ".xz"])


# --- oracles: bytes, lines, numbers


def unpacked(data, suffix):
    """Decompress; every byte must belong to a whole stream, but for zeros after the last."""
    if not suffix:
        return data
    new = {".gz": partial(zlib.decompressobj, 31), ".bz2": bz2.BZ2Decompressor,
           ".xz": lzma.LZMADecompressor}[suffix]  # fmt: skip
    whole = b""
    if not data and suffix != ".gz":
        raise InvalidError("no stream")
    while data:
        stream = new()
        try:
            whole += stream.decompress(data)
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise InvalidError(f"damaged: {error}") from error
        if not stream.eof:
            raise InvalidError("cut off")
        data = stream.unused_data.lstrip(b"\0")
    return whole


def packing(name):
    return name[name.rindex(".") :] if name.endswith((".gz", ".bz2", ".xz")) else ""


def lines_of(data):
    """Number the lines that are not blank."""
    parts = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(parts, 1):
        yield number, line.removesuffix(b"\r")


NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"[+-]?[0-9]+")
BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def real(value):
    """Give the finite number that a value is or says, or None."""
    if isinstance(value, str):
        value = float(value) if NUMBER.fullmatch(value) else None
    return None if value is None or value - value != 0 else float(value)


def integer(value):
    """Give the integer of 64 bits that a value is or says without a point, or None."""
    if isinstance(value, str):
        stripped = value.lstrip("+-0")
        plain = INTEGER.fullmatch(value) and len(stripped) < 20
        value = int(value) if plain else None
    fits = type(value) is int and -(2**63) <= value < 2**63
    return value if fits else None


def whole(value):
    """Give the integer that a value is or says, also if it is written 5.0, or None."""
    number = real(value)
    if integer(value) is not None:
        return integer(value)
    exact = number is not None and abs(number) <= 2**53 and number == int(number)
    return int(number) if exact else None


# --- oracle: separated text


@dataclass
class Table:
    """Columns, rows of typed values, and the line of each row."""

    columns: list[str]
    rows: list[tuple]
    lines: list[int]


def decoded(data, encoding, records):
    """Decode and give `records` of the text.

    A file is decoded in pieces, so what is wrong before the fault may be found before it.
    """
    if encoding == "utf-16" and data and data[:2] not in {b"\xff\xfe", b"\xfe\xff"}:
        raise InvalidError("UTF-16 of unknown byte order", 1)
    try:
        text = data.decode(encoding)
        text.encode()
    except UnicodeError as error:
        whole = text if isinstance(error, UnicodeEncodeError) else data
        before = whole[: getattr(error, "start", 0)]
        if isinstance(before, bytes):
            before = before.decode(encoding, "replace")
        lines = {before.count("\n") + 1}
        try:
            records(before.removeprefix("\ufeff"))
        except InvalidError as invalid:
            lines |= invalid.lines
        raise InvalidError(f"not {encoding}: {error}", *lines) from error
    return records(text.removeprefix("\ufeff"))


def records_of(text, separator, *, quotes):
    """Split into records by regular expressions; a list of (line, fields)."""
    stop = re.escape(separator) + ('"' if quotes else "")
    plain, end = re.compile(rf"[^\r\n\0{stop}]*"), re.compile(r"\r?\n|\Z")
    quoted = re.compile(r'"([^"]*(?:""[^"]*)*)"(?!")')
    at, line, records = 0, 1, []
    while at < len(text):
        if blank := re.compile(r"\r?\n").match(text, at):
            at, line = blank.end(), line + 1
            continue
        first, fields = line, []
        while True:
            if quotes and text.startswith('"', at):
                found = quoted.match(text, at)
                if not found:
                    before = text[at : text.find("\0", at)] if "\0" in text[at:] else ""
                    raise InvalidError("a quote that does not close", line + before.count("\n"))
                value = found[1].replace('""', '"')
                if "\0" in value:
                    raise InvalidError("NUL", line + value[: value.index("\0")].count("\n"))
                line += value.count("\n")
            else:
                found = plain.match(text, at)
                value = found[0]
            fields.append(value or None)
            at = found.end()
            if text.startswith(separator, at):
                at += 1
            elif stopped := end.match(text, at):
                at = stopped.end()
                break
            else:
                raise InvalidError(f"{text[at]!r} after a field", line)
        if records and len(fields) != len(records[0][1]):
            raise InvalidError("another number of fields", first)
        records.append((first, tuple(fields)))
        line += 1
    return records


def text_table(data, separator=",", *, has_header=True, quotes=True, encoding="utf-8"):
    records = decoded(data, encoding, partial(records_of, separator=separator, quotes=quotes))
    if not records:
        raise InvalidError("empty")
    columns = [f"column_{i}" for i in range(1, len(records[0][1]) + 1)]
    if has_header:
        columns = [name or "" for name in records.pop(0)[1]]
        if len(set(columns)) < len(columns):
            raise InvalidError("a repeated name")
    return Table(columns, [fields for _, fields in records], [line for line, _ in records])


# --- oracle: JSON lines


def json_object(line, number):
    def distinct(pairs):
        if len(dict(pairs)) < len(pairs):
            raise InvalidError("a key twice", number)
        return dict(pairs)

    def strange(name):
        raise InvalidError(name, number)

    try:
        found = json.loads(line.decode(), object_pairs_hook=distinct, parse_constant=strange)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"no JSON: {error}", number) from error
    if not isinstance(found, dict):
        raise InvalidError("no object", number)
    return found


def is_text(value):
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_table(data, names=None):
    kinds, fractions, long, seen = {}, set(), set(), set()
    rows, lines = [], []
    for number, line in lines_of(data):
        if not line.strip(b" \t\r"):
            continue
        found = json_object(line, number)
        if names is None:
            names = [k for k, v in found.items() if isinstance(v, (str, int, float))]
            if not names or not all(map(is_text, names)):
                raise InvalidError("no columns", number)
        seen |= set(found)
        for name in names:
            value = found.get(name)
            if value is None:
                continue
            kind = {str: "text", bool: "flag", int: "number", float: "number"}.get(type(value))
            if kind is None or kinds.setdefault(name, kind) != kind:
                raise InvalidError("nested or of another kind", number)
            if kind == "text" and not is_text(value):
                raise InvalidError("half a character", number)
            if kind == "number":
                if real(value if isinstance(value, float) else 0) is None:
                    raise InvalidError("too large", number)
                if isinstance(value, float):
                    fractions.add(name)
                elif integer(value) is None:
                    raise InvalidError("too long", number)
                elif int(float(value)) != value:
                    long.add(name)
            if name in fractions & long:
                raise InvalidError("an integer that is no float", number)
        rows.append([found.get(name) for name in names])
        lines.append(number)
    if not rows:
        raise InvalidError("empty")
    if set(names) - seen:
        raise InvalidError("a missing column")
    for place, name in enumerate(names):
        for row in rows:
            if name in fractions and row[place] is not None:
                row[place] = float(row[place])
    return Table(names, [tuple(row) for row in rows], lines)


# --- oracle: from a table to interactions

PARTS = ("user", "item", "value", "time")


def id_or_none(value):
    if isinstance(value, float):
        number = real(value)
        return int(number) if number == whole(number) and number is not None else None
    return value


def numbers_of(values):
    """Read a column as integers if all are, else as floats; None for what is no number."""
    values = [value.strip(BLANKS) if isinstance(value, str) else value for value in values]
    values = [float(value) if isinstance(value, bool) else value for value in values]
    if all(integer(value) is not None for value in values):
        return [integer(value) for value in values]
    return [real(value) for value in values]


def parts_of(table, picks):
    """Give the columns under their roles."""
    places = {}
    for part, pick in picks.items():
        place = pick if isinstance(pick, int) else -1
        if pick in table.columns:
            place = table.columns.index(pick)
        if not 0 <= place < len(table.columns):
            raise InvalidError(f"no column {pick!r}")
        places[part] = place
    return {part: [row[place] for row in table.rows] for part, place in places.items()}


def interactions_of(parts, lines, rules):
    """Count as the rules say; the pairs that are left, each with its earliest time."""
    typed = {
        part: [*map(id_or_none, values)] if part in {"user", "item"} else numbers_of(values)
        for part, values in parts.items()
        if part != "value" or rules.min_value is not None
    }
    bad = [lines[values.index(None)] for values in typed.values() if None in values]
    if bad:
        raise InvalidError("an id or a number", *bad)
    pairs = {}
    for at, pair in enumerate(zip(typed["user"], typed["item"], strict=True)):
        if rules.min_value is not None and not typed["value"][at] >= rules.min_value:
            continue
        time = typed["time"][at] if "time" in typed else None
        pairs[pair] = min(pairs.get(pair, time), time) if time is not None else None
    for side, least in ((0, rules.min_user_items), (1, rules.min_item_users)):
        counts = Counter(pair[side] for pair in pairs)
        pairs = {pair: time for pair, time in pairs.items() if counts[pair[side]] >= least}
    if not pairs:
        raise InvalidError("nothing is left", of_rules=True)
    return shown((*pair, time) if "time" in typed else pair for pair, time in pairs.items())


def shown(rows):
    return sorted(map(repr, rows))


def pairs_of(data, report=None, n_rows=None):
    """Say what is in `Interactions`, and see whether their counts are those of the pairs."""
    rows = data.to_frame().rows()
    assert data.n_pairs == len(rows) == len({row[:2] for row in rows})
    assert data.n_users == len({row[0] for row in rows})
    assert data.n_items == len({row[1] for row in rows})
    if report is not None:
        assert report.steps[0].n_pairs == n_rows
        assert report.steps[-1].n_pairs == len(rows)
    return shown(rows)


# --- targets: tables

DRAWN = [("user", "item", "value", "time"), ("user", "item", "value", "time", "note"),
         ("note", "time", "item", "user", "value"), ("user", "item")]  # fmt: skip


def log(rng, n):
    return [
        {"user": f"u{rng.randrange(4)}", "item": f"i{rng.randrange(5)}",
         "value": str(rng.choice([1, 2, 3, 4, 5, 2.5])), "time": str(rng.randrange(10**9)),
         "note": rng.choice(["", "x", "é", '"'])}
        for _ in range(n)
    ]  # fmt: skip


def stage_of(rng):
    """Draw how far the file is followed, and the rules."""
    stage = rng.choice(["scan", "scan", "prepare", "prepare", "read"])
    rules = Rules(
        min_value=rng.choice([None, 2, 3.5]), min_user_items=rng.choice([1, 1, 2]),
        min_item_users=rng.choice([1, 1, 2]),
    )  # fmt: skip
    return stage, rules


SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".dat": ";", "": "|",
              ".x": ":"}  # fmt: skip


def make_text(seed, rng, target="text"):
    spoil = Spoiler(rng)
    columns = rng.choice(DRAWN)
    kinds = ["n" if name in {"value", "time"} else "i" for name in columns]
    rows = [[row[name] for name in columns] for row in log(rng, rng.randrange(1, 9))]
    spoil.cells(rows, kinds)
    form = {"has_header": False} if spoil.odds(0.3) else {}
    if "has_header" not in form:
        header = list(columns)
        if spoil.odds(0.06):
            header[rng.randrange(len(header))] = rng.choice([*columns, "", "x,y", "User", " user"])
            spoil.note("another header")
        rows.insert(0, header)
    suffix = rng.choice([".csv", ".csv", ".tsv", ".tab", ".inter", ".dat", "", ".x"])
    separator = SEPARATORS[suffix]
    if suffix in {".dat", "", ".x"} or spoil.odds(0.1):
        form["separator"] = separator
    if spoil.odds(0.25):
        form["quotes"] = spoil.odds(0.5)
    if spoil.odds(0.2):
        form["encoding"] = rng.choice(["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-8-sig",
                                       "cp1252", "ascii", "shift_jis", "gb18030"])  # fmt: skip
    quotes = form.get("quotes", separator != "\t")
    texts = [separator.join(written(spoil, cell, separator, quotes) for cell in r) for r in rows]
    spoil.lines(texts)
    data = spoil.encoded(spoil.joined(texts), form.get("encoding", "utf-8"))
    data = spoil.bytes(data)
    packed = spoil.suffix()
    name = f"log{suffix}{packed}"
    stage, rules = stage_of(rng)
    if set(columns) == {"user", "item"}:
        rules = Rules()
    return Case(target, seed, {name: spoil.packed(data, packed)}, name, form, stage, rules,
                tuple(spoil.changes))  # fmt: skip


def written(spoil, cell, separator, quotes):
    """Write a cell so that it comes back, where that can be and mostly."""
    if not quotes or spoil.odds(0.02):
        return cell
    if set(cell) & {separator, '"', "\n", "\r"} or spoil.odds(0.2):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def mark_of(case):
    name = case.given.removesuffix(packing(case.given)).removeprefix("log")
    return case.form.get("separator", SEPARATORS[name])


def text_of(case):
    mark = mark_of(case)
    return text_table(
        unpacked(case.files[case.given], packing(case.given)), mark,
        has_header=case.form.get("has_header", True), quotes=case.form.get("quotes", mark != "\t"),
        encoding=case.form.get("encoding", "utf-8"),
    )  # fmt: skip


def json_of(case):
    return json_table(
        unpacked(case.files[case.given], packing(case.given)), case.form.get("columns")
    )


def picks_of(case):
    """Give the columns that are asked for: by name, or by place where there is no header."""
    parts = ("user", "item", *(("value",) if case.rules.min_value is not None else ()),
             *(("time",) if case.seed % 2 and case.rules != Rules() else ()))  # fmt: skip
    if "has_header" in case.form:
        return {part: place for place, part in enumerate(parts)}
    return {part: part for part in parts}


def expect_table(case, parse):
    table = parse(case)
    if case.stage == "scan":
        probe = case.seed % len(table.rows) if table.rows else None
        line = None if probe is None else table.lines[probe]
        return Right([(table.columns, shown_rows(table.rows), line)])
    rules = case.rules
    if case.stage == "read":
        rules = Rules(min_value=rules.min_value)
    pairs = interactions_of(parts_of(table, picks_of(case)), table.lines, rules)
    return Right([(pairs, len(table.rows))])


def shown_rows(rows):
    return [repr(tuple(row)) for row in rows]


def observe_table(case, path, scratch):
    if case.stage == "read":
        picks = picks_of(case)
        data = Interactions.read(path, **picks, min_value=case.rules.min_value, **case.form)
        rows = tables.select(readers.scan(path, scratch, **case.form).rows, **picks)
        return pairs_of(data), rows.collect().height
    with readers.reading(path):
        raw = readers.scan(path, scratch, **case.form)
        if case.stage == "scan":
            frame = raw.rows.collect()
            probe = case.seed % frame.height if frame.height else None
            line = None if probe is None else line_in(raw.where(probe))
            return frame.columns, shown_rows(frame.rows()), line
        rows = tables.select(raw.rows, **picks_of(case))
        raw = readers.Raw(rows, raw.where)
        n_rows = rows.collect().height
        data, report = prepare(raw, case.rules, progress=False)
        return pairs_of(data, report, n_rows), n_rows


def line_in(text):
    found = re.search(r"\b(?:[Ll]ine|row) ([0-9,]+)\b", text)
    return int(found[1].replace(",", "")) if found else None


ODD_JSON = [
    "null", "true", "NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "5.0", "0.5", "[]", "{}",
    "[1]", '{"user": 1}', "9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", '"\\ud800"', '"\\ud83c\\udfac"', '"\\u0000"', '"5"', '" 5"', '""',
    '"nan"', "01", "1.", "'x'", "1e3", '"x\ty"', '"\\n"', "9" * 30, "", "tru", "[" * 3000,
]  # fmt: skip


def make_json(seed, rng):
    spoil = Spoiler(rng)
    columns = list(rng.choice(DRAWN[:2]))
    numeric = {name for name in PARTS if spoil.odds(0.6)}
    rows = []
    for row in log(rng, rng.randrange(1, 9)):
        if "user" in numeric | {"item"}:
            row |= {name: row[name][1:] for name in numeric & {"user", "item"}}
        rows.append({k: row[k] if k in numeric else json.dumps(row[k]) for k in columns})
    while spoil.odds(0.35):
        row, name = rng.choice(rows), rng.choice(columns)
        if name not in row or spoil.odds(0.2):
            row.pop(name, None)
            continue
        pool = [json.dumps(value) for value in IDS] if spoil.odds(0.4) else ODD_JSON
        row[name] = rng.choice(pool)
        spoil.note(f"{row[name][:20]} for {name}")
    texts = []
    for row in rows:
        pairs = [f'"{name}": {value}' for name, value in row.items()]
        if spoil.odds(0.2):
            rng.shuffle(pairs)
        if pairs and spoil.odds(0.03):
            pairs.append(rng.choice(pairs))
            spoil.note("a key twice")
        texts.append("{" + ", ".join(pairs) + "}")
    spoil.lines(texts)
    data = spoil.bytes(spoil.encoded(spoil.joined(texts), "utf-8"), 0.25)
    packed = spoil.suffix()
    name = f"log{rng.choice(['.jsonl', '.ndjson', '.json'])}{packed}"
    stage, rules = stage_of(rng)
    form = {}
    if stage != "read" and spoil.odds(0.5):
        form["columns"] = columns if stage == "prepare" else rng.sample(columns, 2)
    return Case("json", seed, {name: spoil.packed(data, packed)}, name, form, stage, rules,
                tuple(spoil.changes))  # fmt: skip


# --- targets: Parquet and Arrow


def make_columnar(seed, rng, target):
    spoil = Spoiler(rng)
    rows = log(rng, rng.randrange(1, 60))
    if spoil.odds(0.2):
        rng.choice(rows)[rng.choice(["user", "item"])] = rng.choice([None, *IDS])
    number = rng.choice([int, float])
    frame = pl.DataFrame(
        {
            "user": [row["user"] for row in rows],
            "item": [row["item"] if number is float or not row["item"] else hash_of(row["item"])
                     for row in rows],
            "value": [float(row["value"]) for row in rows],
            "time": [int(row["time"]) for row in rows],
        },
        strict=False,
    )  # fmt: skip
    if spoil.odds(0.15):
        odd = rng.choice([None, float("nan"), float("inf"), -0.0])
        frame = frame.with_columns(
            value=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(odd)).otherwise("value")
        )
    file = io.BytesIO()
    if target == "parquet":
        name = rng.choice(["log.parquet", "log.pq"])
        frame.write_parquet(file, compression=rng.choice(["zstd", "snappy", "uncompressed"]))
    else:
        name = rng.choice(["log.arrow", "log.feather", "log.ipc"])
        frame.write_ipc(file, compression=rng.choice(["uncompressed", "uncompressed", "zstd"]))
    data = spoil.bytes(file.getvalue(), 0.55)
    stage, rules = stage_of(rng)
    return Case(target, seed, {name: data}, name, {}, stage, rules, tuple(spoil.changes), frame)


def hash_of(text):
    return zlib.crc32(text.encode())


def expect_columnar(case):
    data = case.files[case.given]
    original, again = frame_table(case.original), arrow_table(case.target, data)
    contents, failures = [], []
    for table in (original, again):
        if table is None:
            continue
        try:
            contents += expect_table(case, lambda _, table=table: table).contents
        except InvalidError as invalid:
            failures.append(invalid)
        except (TypeError, KeyError, ValueError):  # no types that the oracle knows
            continue
    if not contents and failures:
        raise failures[0]
    # Neither format has checksums, and polars finds less than pyarrow: all that can be asked of a
    # file that the latter refuses is that no rows are missing.
    n_rows = len(original.rows) if again is None else None
    return Right(contents, bool(case.changes), n_rows)


def frame_table(frame):
    return Table(frame.columns, frame.rows(), list(range(1, frame.height + 1)))


def arrow_table(target, data):
    """Read with pyarrow; None if it cannot."""
    try:
        if target == "parquet":
            table = pyarrow.parquet.read_table(io.BytesIO(data))
        else:
            with pyarrow.ipc.open_file(pa.BufferReader(data)) as file:
                table = file.read_all()
        table.validate(full=True)
        columns = [column.to_pylist() for column in table.columns]
        rows = list(zip(*columns, strict=True))
    except (pa.ArrowException, OSError, ValueError, MemoryError, UnicodeDecodeError):
        return None
    return Table(table.column_names, rows, list(range(1, len(rows) + 1)))


# --- targets: recipes


class MalformedLineError(Exception):
    pass


def sieved(data, parse, encoding="utf-8", errors="strict", header=None):
    """Give what can be read of a file with dirt, and the lines that cannot."""
    rows, rejected, first = [], [], True
    for number, line in lines_of(data):
        if not line.strip():
            continue
        was_first, first = first, False
        try:
            text = line.decode(encoding, errors)
            if was_first and header and text.lower().startswith(header):
                continue
            rows.append(parse(text))
        except (UnicodeDecodeError, MalformedLineError):
            rejected.append(number)
    if len(rejected) > len(rows):
        raise InvalidError("mostly dirt", rejected[0])
    if not rows:
        raise InvalidError("empty")
    return rows, rejected


def described(data, parse, **how):
    """As `sieved`, for a file with one line for each item."""
    seen = set()

    def first(text):
        row = parse(text)
        if row[0] in seen:
            raise MalformedLineError
        seen.add(row[0])
        return row

    return sieved(data, first, **how)


def needs(good):
    if not good:
        raise MalformedLineError


def strict(table, columns, *, counts=False):
    """Read user, item, value and time of a log in which every line must be right."""
    if not table.rows:
        raise InvalidError("no rows")
    parts = parts_of(table, columns)
    typed = {}
    for part, values in parts.items():
        if part in {"user", "item"}:
            typed[part] = [value if isinstance(value, str) and value else None for value in values]
        elif any(isinstance(value, bool) for value in values):
            typed[part] = [None] * len(values)
        elif part == "time" or counts:
            typed[part] = [*map(whole, values)]
        else:
            exact = [*map(whole, values)]
            typed[part] = exact if None not in exact else [*map(real, values)]
        if counts and part == "value":
            typed[part] = [n if n is not None and n >= 1 else None for n in typed[part]]
    bad = [table.lines[values.index(None)] for values in typed.values() if None in values]
    if bad:
        raise InvalidError("an id or a number", *bad)
    return list(zip(*typed.values(), strict=True))


@dataclass
class Read:
    """What a recipe gives."""

    rows: list[tuple]
    items: list[tuple] | None = None
    rejected: list[int] = field(default_factory=list)
    dropped: list = field(default_factory=list)

    def content(self):
        kept = [row for at, row in enumerate(self.rows) if not (self.dropped and self.dropped[at])]
        pairs = {}
        for row in kept:
            pairs[row[:2]] = min(pairs.get(row[:2], row[3:]), row[3:])
        return (
            shown_rows(self.rows), self.dropped,
            None if self.items is None else shown_rows(self.items), self.rejected,
            shown((*pair, *time) for pair, time in pairs.items()),
        )  # fmt: skip


def observe_recipe(case, path, scratch):
    raw = RECIPES[case.form["recipe"]].read(path, scratch)
    with readers.reading(path):
        frame = raw.rows.collect()
        dropped = frame["dropped"].to_list() if "dropped" in frame.columns else []
        parts = [name for name in PARTS if name in frame.columns]
        found = Read(
            frame.select(parts).rows(),
            None if raw.items is None else raw.items.rows(),
            raw.rejected["line"].to_list(),
            [reason is not None for reason in dropped],
        ).content()
        if dropped and None not in dropped:
            return found
        data, report = prepare(raw, progress=False)
        found = (*found[:-1], pairs_of(data, report, frame.height))
        if raw.items is not None:
            known = {row[0] for row in raw.items.rows()}
            assert set(data.item_table["item_id"]) == known & set(data.item_ids)
    return found


def archive_of(case):
    if not case.given.endswith(".zip"):
        return None
    try:
        return zipfile.ZipFile(io.BytesIO(case.files[case.given]))
    except Exception as error:
        raise InvalidError(f"no archive: {error}") from error


def expect_recipe(case, read):
    """Let an oracle read the files; `take` gives the content of one, or None."""
    archive = archive_of(case)

    def take(name):
        if archive is None:
            for suffix in PACKERS:
                if name + suffix in case.files:
                    return unpacked(case.files[name + suffix], suffix)
            return None
        for inside in archive.namelist():
            if inside.lower() == name.lower():
                try:
                    return archive.read(inside)
                except Exception as error:
                    raise InvalidError(f"damaged archive: {error}") from error
        return None

    main = case.form["main"]
    if take(main) is None:
        raise InvalidError("the file is not there")
    spoilt_archive = case.given.endswith(".zip") and "archive" in case.changes
    return Right([read(take, main).content()], refusable=spoilt_archive)


def make_recipe(seed, rng, target, recipe, write):
    spoil = Spoiler(rng)
    files = write(rng, spoil)
    main = next(iter(files))
    files = {name: files[name] for name in files if name == main or spoil.odds(0.7)}
    one = rng.choice([main, main, *files])
    files[one] = spoil.bytes(files[one], 0.4)
    how = rng.choice(["plain", "plain", "packed", "zip"])
    given = rng.choice([main, ""])
    if how == "packed":
        suffix = rng.choice([".gz", ".bz2", ".xz"])
        files = {name + suffix: spoil.packed(data, suffix) for name, data in files.items()}
        given = given and main + suffix
    elif how == "zip":
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, rng.choice([0, 8, 8, 12, 14]))
        data = spoil.bytes(whole.getvalue(), 0.4)
        if data != whole.getvalue():
            spoil.note("archive")
        files, given = {"all.zip": data}, "all.zip"
    form = {"recipe": recipe, "main": main}
    return Case(target, seed, files, given, form, changes=tuple(spoil.changes))


def spoilt_text(spoil, rows, kinds, separator, header=None, end=None):
    """Write rows without quotes and spoil cells and lines."""
    spoil.cells(rows, kinds)
    texts = [separator.join(row) for row in rows]
    if header is not None:
        texts.insert(0, header)
    spoil.lines(texts)
    return spoil.joined(texts)


def ratings(rng, n=None, *, whole_values=False):
    return [
        [str(rng.randrange(1, 5)), str(rng.randrange(1, 6)),
         str(rng.choice([1, 2, 5] if whole_values else [1, 5, 4.5, "3.0"])),
         str(rng.randrange(10**9))]
        for _ in range(n or rng.randrange(1, 9))
    ]  # fmt: skip


# Amazon

PRODUCTS = [
    {"asin": "1", "title": "A &amp; B", "categories": [["X", "Y"], ["X"]], "price": 9.99},
    {"asin": "2", "title": " ", "brand": "é🎬", "price": "$1,012.50"},
    {"asin": "3", "category": ["Z"], "price": 1e20},
    {"asin": "4", "title": 'it\'s "x"', "brand": None},
]


def products(rng, spoil):
    texts = [repr(one) if spoil.odds(0.5) else json.dumps(one) for one in PRODUCTS]
    spoil.lines(texts)
    return spoil.encoded(spoil.joined(texts), "utf-8")


def write_reviews(rng, spoil):
    texts = []
    for user, item, value, time in ratings(rng):
        row = {"reviewerID": json.dumps(user), "asin": json.dumps(item), "overall": value,
               "unixReviewTime": time, "reviewText": '"x"'}  # fmt: skip
        if spoil.odds(0.06):
            name = rng.choice(list(row))
            row[name] = rng.choice(ODD_JSON + [json.dumps(value) for value in IDS + NUMBERS])
            spoil.note(f"{row[name][:20]} for {name}")
        texts.append("{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}")
    spoil.lines(texts)
    data = spoil.encoded(spoil.joined(texts), "utf-8")
    return {"reviews_X_5.json": data, "meta_x.json": products(rng, spoil)}


def write_amazon_csv(rng, spoil):
    text = spoilt_text(spoil, ratings(rng), "iinn", ",")
    return {
        "ratings_X.csv": spoil.encoded(text, "utf-8"),
        "meta_X.json": products(rng, spoil),
    }


def read_reviews(take, main):
    keys = ["reviewerID", "asin", "overall", "unixReviewTime"]
    table = json_table(take(main), keys)
    return with_products(take("meta_x.json"), strict(table, dict(zip(PARTS, keys, strict=True))))


def read_amazon_csv(take, main):
    table = text_table(take(main), has_header=False)
    if len(table.columns) != 4:
        raise InvalidError("not 4 fields")
    first = table.rows[:100]
    long = [[len(row[side]) == 10 for row in first if row[side]] for side in (0, 1)]
    if all(long[0]) and not all(long[1]):
        raise InvalidError("the item first")
    rows = strict(table, {part: at for at, part in enumerate(PARTS)})
    return with_products(take("meta_X.json"), rows)


def with_products(data, rows):
    if data is None:
        return Read(rows)
    return Read(rows, *described(data, product))


def product(text):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise MalformedLineError from None
    needs(isinstance(found, dict))
    asin = found.get("asin")
    needs(isinstance(asin, str) and asin)

    def plain(value):
        return html.unescape(value).strip() or None if isinstance(value, str) else None

    categories = {}
    parts = [found.get("categories", found.get("category"))]
    while parts:
        part = parts.pop(0)
        if isinstance(part, list):
            parts = part + parts
        elif plain(part):
            categories[plain(part)] = None
    price = found.get("price")
    if isinstance(price, str):
        digits = price.strip().removeprefix("$").replace(",", "")
        price = float(digits) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", digits) else None
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < 1e12:
        price = None
    row = (asin, plain(found.get("title")), " | ".join(categories) or None,
           plain(found.get("brand")))  # fmt: skip
    needs(is_text("".join(text or "" for text in row)))
    return (*row, None if price is None else float(price))


# Book-Crossing


def mysql(*fields):
    escaped = [str(f).replace("\\", "\\\\").replace('"', '\\"') for f in fields]
    return ";".join(f'"{field}"' for field in escaped)


def write_books(rng, spoil):
    rows = [row[:3] for row in ratings(rng, whole_values=True)]
    spoil.cells(rows, "iin")
    texts = [mysql("User-ID", "ISBN", "Book-Rating")] * spoil.odds(0.7)
    texts += [mysql(*row) for row in rows]
    spoil.lines(texts)
    about = [mysql("ISBN", "Title", "Author", "Year", "Publisher", "S", "M", "L")]
    about += [
        mysql(item, f"T &amp; {item}", 'A "B"', "2000", "é", "s", "m", "l") for item in "1234"
    ]
    spoil.lines(about)
    return {
        "BX-Book-Ratings.csv": spoil.encoded(spoil.joined(texts), "latin-1"),
        "BX-Books.csv": spoil.encoded(spoil.joined(about), "latin-1"),
    }


def mysql_fields(text, n_fields):
    """Read fields by going through the characters; else split at every ";"."""
    fields, at = [], 0
    while text[at : at + 1] == '"':
        at, value = at + 1, ""
        while at < len(text) and text[at] != '"':
            if text[at] == "\\":
                if at + 1 == len(text):
                    break
                value += text[at + 1] if text[at + 1] in '"\\' else text[at : at + 2]
                at += 2
            else:
                value, at = value + text[at], at + 1
        if text[at : at + 1] != '"':
            break
        fields.append(value)
        at += 1
        if at == len(text):
            if len(fields) == n_fields:
                return fields
            break
        if text[at] != ";":
            break
        at += 1
    needs(len(text) > 1 and text[0] == text[-1] == '"')
    fields = text[1:-1].split('";"')
    needs(len(fields) == n_fields)
    return fields


def isbn_of(text):
    needs(html.unescape(text).strip())
    return html.unescape(text)


def book_rating(text):
    user, isbn, rating = mysql_fields(text, 3)
    needs(user and set(user) <= set("0123456789"))
    needs(rating in [*map(str, range(11))])
    return user, isbn_of(isbn), int(rating)


def book(text):
    isbn, *about = mysql_fields(text, 8)
    return isbn_of(isbn), *map(html.unescape, about[:4])


def read_books(take, main):
    latin = {"encoding": "latin-1"}
    rows, rejected = sieved(take(main), book_rating, header='"user-id";', **latin)
    data = take("BX-Books.csv")
    if data is None:
        return Read(rows, None, rejected)
    books, more = described(data, book, header='"isbn";', **latin)
    return Read(rows, books, rejected + more)


# Echonest


def song(number):
    return f"SO{number:016X}"


def write_plays(rng, spoil):
    rows = [[f"u{user}", song(int(item)), value]
            for user, item, value, _ in ratings(rng, whole_values=True)]  # fmt: skip
    plays = spoilt_text(spoil, rows, "iin", "\t")
    names = [("A", "x"), ("a ", "X"), ("B", "y"), ("A", "\uff58"), ("", ""), ("C", "")]
    tracks = [f"TR<SEP>{song(rng.randrange(1, 7))}<SEP>{a}<SEP>{t}" for a, t in names]
    spoil.lines(tracks)
    wrong = [f"ERROR: <{song(n)} TR{n:016X}> é  !=  z" for n in rng.sample(range(1, 9), 2)]
    spoil.lines(wrong)
    return {
        "train_triplets.txt": spoil.encoded(plays, "utf-8"),
        "unique_tracks.txt": spoil.encoded(spoil.joined(tracks), "utf-8"),
        "sid_mismatches.txt": spoil.encoded(spoil.joined(wrong), "utf-8"),
    }


def wrong_song(text):
    """Give the song of a line such as "ERROR: <SO... TR...> ..."."""
    head = text[: text.find(">")] if ">" in text else ""
    parts = head.removeprefix("ERROR: <").split(" ")
    needs(head.startswith("ERROR: <") and len(parts) == 2)
    for part, start in zip(parts, ("SO", "TR"), strict=True):
        needs(part.startswith(start) and re.fullmatch("[0-9A-Z]{18}", part))
    return parts[0]


def track(text):
    fields = text.split("<SEP>")
    needs(len(fields) == 4 and fields[1])
    return fields[1:]


def read_plays(take, main):
    table = text_table(take(main), "\t", has_header=False, quotes=False)
    if len(table.columns) != 3:
        raise InvalidError("not 3 fields")
    rows = strict(table, {"user": 0, "item": 1, "value": 2}, counts=True)
    wrong, rejected = [], []
    if take("sid_mismatches.txt") is not None:
        wrong, rejected = sieved(take("sid_mismatches.txt"), wrong_song, errors="replace")
    dropped = [row[1] in wrong for row in rows] if wrong else []
    if take("unique_tracks.txt") is None:
        return Read(rows, None, rejected, dropped)
    listed, more = sieved(take("unique_tracks.txt"), track)
    about = {}
    for item, artist, title in listed:
        if item not in wrong:
            about.setdefault(item, (artist, title))
    groups = {}
    for item, names in about.items():
        key = tuple(" ".join(unicodedata.normalize("NFKC", n).casefold().split()) for n in names)
        groups.setdefault(key if all(key) else item, []).append(item)
    one = {item: min(group) for group in groups.values() for item in group}
    items = [(item, title, artist) for item, (artist, title) in about.items() if one[item] == item]
    merged = [(user, one.get(item, item), plays) for user, item, plays in rows]
    return Read(merged, items, rejected + more, dropped)


# Last.fm


def write_lastfm(rng, spoil):
    rows = [row[:3] for row in ratings(rng, whole_values=True)]
    header = "userID\tartistID\tweight"
    about = ["id\tname\turl\tpictureURL", *(f"{n}\té {n}\thttp://{n}\t" for n in "1234")]
    spoil.lines(about)
    return {
        "user_artists.dat": spoil.encoded(spoilt_text(spoil, rows, "iin", "\t", header), "utf-8"),
        "artists.dat": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def artist(text):
    fields = text.split("\t")
    needs(len(fields) == 4 and fields[0])
    return tuple(fields[:3])


def read_lastfm(take, main):
    table = text_table(take(main), "\t", quotes=False)
    columns = {"user": "userID", "item": "artistID", "value": "weight"}
    rows = strict_named(table, columns, counts=True)
    if take("artists.dat") is None:
        return Read(rows)
    return Read(rows, *described(take("artists.dat"), artist, header="id\t"))


def strict_named(table, columns, **how):
    """As `strict`; names count up to a ":"."""
    short = {}
    for at, name in enumerate(table.columns):
        short[name.split(":")[0]] = at
    for name in columns.values():
        if name not in short:
            raise InvalidError(f"no column {name!r}")
    return strict(table, {part: short[name] for part, name in columns.items()}, **how)


# MovieLens

FLAGS = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]  # fmt: skip
FILMS = [("1", "Toy Story (1995)", ["Animation", "Comedy"]), ("2", "Été (1996)", ["Drama"]),
         ("3", "X: Y", []), ("4", 'The "A", B', ["War"])]  # fmt: skip


def write_100k(rng, spoil):
    about = ["|".join([i, t, "", "", "", *(str(int(f in g)) for f in FLAGS)]) for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "u.data": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "\t"), "utf-8"),
        "u.item": spoil.encoded(spoil.joined(about), rng.choice(["latin-1", "utf-8"])),
    }


def write_1m(rng, spoil):
    about = [f"{i}::{t}::{'|'.join(g)}" for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "ratings.dat": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "::"), "utf-8"),
        "movies.dat": spoil.encoded(spoil.joined(about), rng.choice(["latin-1", "utf-8"])),
    }


def write_25m(rng, spoil):
    header = "userId,movieId,rating,timestamp"
    about = ["movieId,title,genres"]
    for item, title, genres in FILMS:
        title = '"' + title.replace('"', '""') + '"' if set(title) & set('",') else title
        about.append(f"{item},{title},{'|'.join(genres) or '(no genres listed)'}")
    spoil.lines(about)
    return {
        "ratings.csv": spoil.encoded(
            spoilt_text(spoil, ratings(rng), "iinn", ",", header), "utf-8"
        ),
        "movies.csv": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def write_recbole(rng, spoil):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    about = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    about += [f"{i}\t{t}\t1995\t{' '.join(g)}" for i, t, g in FILMS]
    spoil.lines(about)
    return {
        "a.inter": spoil.encoded(spoilt_text(spoil, ratings(rng), "iinn", "\t", header), "utf-8"),
        "a.item": spoil.encoded(spoil.joined(about), "utf-8"),
    }


def film(item, title, genres):
    needs(item)
    return item, title, " | ".join(g for g in genres if g and g != "(no genres listed)") or None


def item_film(text):
    fields = text.split("|")
    needs(len(fields) >= 5)
    return film(
        fields[0], fields[1], [f for f, on in zip(FLAGS, fields[5:], strict=False) if on == "1"]
    )


def dat_film(text):
    fields = text.split("::")
    needs(len(fields) == 3)
    return film(*fields[:2], fields[2].split("|"))


def csv_film(text):
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error:
        raise MalformedLineError from None
    needs(len(fields) == 3)
    return film(*fields[:2], fields[2].split("|"))


def recbole_film(text):
    fields = text.split("\t")
    needs(len(fields) == 4)
    item, title, year, genres = fields
    dated = "unknown" if year == "unkonwn" else f"{title} ({year})"
    return film(item, dated, [genres] if genres == "(no genres listed)" else genres.split(" "))


def latin_or_not(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def with_films(data, rows, parse, *, old=False, **how):
    if data is None:
        return Read(rows)
    encoding = latin_or_not(data) if old else "utf-8"
    return Read(rows, *described(data, parse, encoding=encoding, **how))


def read_100k(take, main):
    table = text_table(take(main), "\t", has_header=False, quotes=False)
    if len(table.columns) != 4:
        raise InvalidError("not 4 fields")
    rows = strict(table, {part: at for at, part in enumerate(PARTS)})
    return with_films(take("u.item"), rows, item_film, old=True)


def read_1m(take, main):
    table = text_table(take(main), ":", has_header=False, quotes=False)
    if len(table.columns) != 7:
        raise InvalidError("not 4 fields")
    for row, line in zip(table.rows, table.lines, strict=True):
        if row[1::2] != (None,) * 3:
            raise InvalidError("a single :", line)
    rows = strict(table, {part: 2 * at for at, part in enumerate(PARTS)})
    return with_films(take("movies.dat"), rows, dat_film, old=True)


def read_25m(take, main):
    names = ("userId", "movieId", "rating", "timestamp")
    rows = strict_named(text_table(take(main)), dict(zip(PARTS, names, strict=True)))
    return with_films(take("movies.csv"), rows, csv_film, header="movieid,")


def read_recbole(take, main):
    names = ("user_id", "item_id", "rating", "timestamp")
    table = text_table(take(main), "\t", quotes=False)
    rows = strict_named(table, dict(zip(PARTS, names, strict=True)))
    return with_films(take("a.item"), rows, recbole_film, header="item_id:")


# --- target: saved folders


@cache
def saved(which):
    """Save interactions and give the files and their content."""
    ids = [str, int, lambda n: (n, "x") if n % 2 else f"{n}"][which % 3]
    rng = random.Random(which)
    pairs = [(ids(rng.randrange(9)), ids(rng.randrange(9)), n) for n in range(30)]
    data = Interactions.from_pairs(pairs if which % 2 else [pair[:2] for pair in pairs])
    if which % 3 < 2:
        titles = [f"title {row}" for row in range(data.n_items)]
        data = data.with_item_table(
            pl.DataFrame({"item_id": data.item_ids.values, "title": titles})
        )
    with TemporaryDirectory() as folder:
        more = {"rejected": pl.DataFrame({"line": [1]})}
        data.save(f"{folder}/data", made={"source": "x.csv"}, more=more)
        listed = sorted(Path(folder, "data").iterdir())
        files = {file.name: file.read_bytes() for file in listed}
    return files, folder_content(data)


def folder_content(data):
    table = data.item_table
    return (
        data.fingerprint,
        None if table is None else repr(table.rows()),
        data.titles(data.item_ids),
    )


def make_folder(seed, rng):
    spoil = Spoiler(rng)
    files, content = saved(rng.randrange(6))
    files = dict(files)
    name = rng.choice([*files, "nearfar.json", "nearfar.json"])
    what = rng.randrange(12)
    if what == 0:
        del files[name]
        spoil.note(f"without {name}")
    elif what == 1:
        files[name] = files[rng.choice(list(files))]
        spoil.note(f"another content of {name}")
    elif what == 2:
        text = files["nearfar.json"].decode()
        word = rng.choice(re.findall(r"\w+", text))
        files["nearfar.json"] = text.replace(
            word, rng.choice(["x", "1", "null", "true"]), 1
        ).encode()
        spoil.note(f"{word} replaced")
    elif what < 11:
        files[name] = spoil.bytes(files[name], 0.6)
        spoil.note(f"in {name}")
    return Case("folder", seed, files, "", changes=tuple(spoil.changes), original=content)


def expect_folder(case):
    return Right([case.original], refusable=bool(case.changes))


def observe_folder(case, path, scratch):
    return folder_content(Interactions.load(path))


# --- the loop

TARGETS = {
    "text": Target(make_text, partial(expect_table, parse=text_of), observe_table),
    "json": Target(make_json, partial(expect_table, parse=json_of), observe_table),
    "parquet": Target(
        partial(make_columnar, target="parquet"), expect_columnar, observe_table, False
    ),
    "arrow": Target(partial(make_columnar, target="arrow"), expect_columnar, observe_table, False),
    "folder": Target(make_folder, expect_folder, observe_folder, False),
}
for _name, _recipe, _write, _read in (
    ("reviews", "amazon", write_reviews, read_reviews),
    ("amazon-csv", "amazon", write_amazon_csv, read_amazon_csv),
    ("books", "book-crossing", write_books, read_books),
    ("plays", "echonest", write_plays, read_plays),
    ("lastfm", "lastfm", write_lastfm, read_lastfm),
    ("100k", "movielens", write_100k, read_100k),
    ("1m", "movielens", write_1m, read_1m),
    ("25m", "movielens", write_25m, read_25m),
    ("recbole", "movielens", write_recbole, read_recbole),
):
    TARGETS[_name] = Target(
        partial(make_recipe, target=_name, recipe=_recipe, write=_write),
        partial(expect_recipe, read=_read),
        observe_recipe,
    )

REMEDY = re.compile(
    r"\b(check|choose|close|convert|copy|correct|double|drop|free|get|loosen|give|make|name|put|read|"
    r"remove|rename|restore|save|say|switch|swap|unpack|upgrade|wait|write|pass|use)\b", re.I
)  # fmt: skip


def case(target, seed):
    """Make a case: the same one for the same name and number."""
    return TARGETS[target].make(seed, random.Random(f"{target} {seed}"))


def examine(one, folder):
    """Read a case and judge what came of it: "read", "refused" or "altered" (`Right.n_rows`).

    Raises
    ------
    FindingError
        If it is not what the oracle says.
    """
    target = TARGETS[one.target]
    place, scratch = folder / "case", folder / "scratch"
    for made in (place, scratch):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    for name, data in one.files.items():
        (place / name).write_bytes(data)
    try:
        right = target.expect(one)
    except InvalidError as invalid:
        right = invalid
    chunk, batch = (text_reader.CHUNK, spool.BATCH) if one.seed % 3 else (11 + one.seed % 50, 2)
    try:
        with patch.object(text_reader, "CHUNK", chunk), patch.object(spool, "BATCH", batch):
            found = target.observe(one, place / one.given, scratch)
    except NearfarError as error:
        fault = wrong_refusal(one, target, right, str(error))
        if fault:
            raise FindingError(f"{fault}: {error}\n{one}") from error
        return "refused"
    except AssertionError as error:
        raise FindingError(f"counts do not agree: {error}\n{one}") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of polars is no Exception
        raise FindingError(f"{type(error).__name__} came through: {error}\n{one}") from error
    if isinstance(right, InvalidError):
        raise FindingError(f"what cannot be read was read ({right}): {str(found)[:500]}\n{one}")
    if repr(found) not in map(repr, right.contents):
        if right.n_rows is not None and right.n_rows == rows_in(found):
            return "altered"
        raise FindingError(f"read\n{found}\nbut it is\n{right.contents}\n{one}"[:8000])
    return "read"


def rows_in(found):
    """Count the rows of what `observe_table` gives."""
    return found[1] if isinstance(found[1], int) else len(found[1])


def wrong_refusal(one, target, right, message):
    """Say what is wrong with an error of nearfar, if something is."""
    if isinstance(right, Right) and not right.refusable:
        return "what can be read was refused"
    names = [*one.files, *(["all.zip"] if one.given == "all.zip" else []), "case"]
    of_rules = right.of_rules if isinstance(right, InvalidError) else right.refusable
    of_rules |= bool(one.changes) and not target.line_by_line
    of_rules = of_rules and message.startswith(("Nothing is left", "There is no interaction"))
    if not of_rules and not any(name in message for name in names):
        return "the file is not named"
    lines = right.lines if target.line_by_line and isinstance(right, InvalidError) else set()
    if lines and line_in(message) not in lines:
        return f"the line must be one of {sorted(lines)} ({right})"
    # those that lack a column list the others
    remedy = REMEDY.search(re.sub(r"'[^']*'", "", message)) or "columns are " in message
    if not (of_rules or remedy or re.search(r"has '.*'; there are ", message)):
        return "there is no remedy"
    return None


def run(target, seeds, folder):
    """Examine many cases; gives how many were read and refused."""
    return Counter(examine(case(target, seed), folder) for seed in seeds)

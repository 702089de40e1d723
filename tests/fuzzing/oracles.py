"""What bytes say, read by plain Python: text, JSON, numbers, and what the rules make of it."""

import bz2
import json
import lzma
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial

from fuzzing.cases import InvalidError


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


PARTS = ("user", "item", "value", "time")


def id_or_none(value):
    if isinstance(value, float):
        number = real(value)
        return int(number) if number == whole(number) and number is not None else None
    return value


def numbers_of(values, *, exact=False):
    """Read a column as integers if all are, else as floats; None for what is no number.

    Where it must be exact, fractions among integers beyond 2^53 are none either.
    """
    values = [value.strip(BLANKS) if isinstance(value, str) else value for value in values]
    values = [float(value) if isinstance(value, bool) else value for value in values]
    if all(integer(value) is not None for value in values):
        return [integer(value) for value in values]
    found = [real(value) for value in values]
    long = exact and None not in found and any(abs(integer(v) or 0) > 2**53 for v in values)
    if long and all(isinstance(value, str) for value in values):
        return [f if integer(v) is not None else None for f, v in zip(found, values, strict=True)]
    return found


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
        part: [*map(id_or_none, values)]
        if part in {"user", "item"}
        else numbers_of(values, exact=part == "time")
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

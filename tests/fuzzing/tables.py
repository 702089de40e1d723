"""Targets: separated text and JSON lines."""

import json
import re

from fuzzing.cases import Case, Right
from fuzzing.oracles import (
    PARTS,
    interactions_of,
    json_table,
    packing,
    pairs_of,
    parts_of,
    text_table,
    unpacked,
)
from fuzzing.spoil import IDS, Spoiler
from nearfar import Interactions, readers
from nearfar.data import table_columns as tables
from nearfar.prepare import prepare
from nearfar.prepare.rules import Rules

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

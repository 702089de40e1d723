"""What the targets that are recipes share."""

import io
import zipfile
from dataclasses import dataclass, field

from fuzzing.cases import Case, InvalidError, Right
from fuzzing.oracles import PARTS, lines_of, pairs_of, parts_of, real, shown, unpacked, whole
from fuzzing.spoil import PACKERS, Spoiler
from fuzzing.tables import shown_rows
from nearfar import readers
from nearfar.datasets.recipes import RECIPES
from nearfar.prepare import prepare


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

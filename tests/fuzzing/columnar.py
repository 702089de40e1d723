"""Targets: Parquet and Arrow."""

import io
import zlib

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from fuzzing.cases import Case, InvalidError, Right
from fuzzing.oracles import Table
from fuzzing.spoil import IDS, Spoiler
from fuzzing.tables import expect_table, log, stage_of


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

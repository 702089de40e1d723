"""Files as other programs leave them: folders of parts, pipes, wrong suffixes, Excel's line."""

import bz2
import gzip
import io
import lzma
import os
import threading
from contextlib import contextmanager

import polars as pl
import pytest

from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.prepare import prepare
from nearfar.readers import scan

PAIRS = [("ann", "tea"), ("bob", "jam"), ("bob", "tea")]
CSV = "user,item\nbob,tea\nann,tea\nbob,jam\n"
FRAME = pl.DataFrame(PAIRS, schema=["user", "item"], orient="row")


def put(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pairs(path, **how):
    return Interactions.read(path, **how).to_frame().rows()


# folders


def spark(folder, keys=("",)):
    """Write a folder as Spark does, one part for each key."""
    for number, key in enumerate(keys):
        part = folder / key / f"part-0000{number}-c0ffee-c000.snappy.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        FRAME[number :: len(keys)].write_parquet(part)
        put(part.parent, f".{part.name}.crc", b"crc")
    put(folder, "_SUCCESS", b"")
    return folder


def test_a_folder_that_spark_wrote(tmp_path):
    assert pairs(spark(tmp_path / "log.parquet")) == PAIRS
    assert pairs(str(spark(tmp_path / "log"))) == PAIRS
    parts = tmp_path / "log.parquet"
    put(parts, "_temporary/0/part-00009.parquet", b"half")
    FRAME.head(0).write_parquet(parts / "part-00001.parquet")
    assert pairs(parts) == PAIRS
    with pytest.raises(
        OptionError, match=r"`separator` can be given for text only; .* is a folder"
    ):
        pairs(parts, separator=",")
    raw = scan(parts, tmp_path, columns=["item"])
    assert raw.rows.collect().columns == ["item"]
    assert raw.where(0) == f"row 1 of the files of '{parts}'"
    assert prepare(scan(parts, tmp_path))[0].n_pairs == 3


def test_folders_of_key_and_value_are_columns_of_text(tmp_path):
    folder = spark(tmp_path / "log", ["day=2019-05-01/shop=007", "day=2019-05-02/shop=7"])
    assert set(pairs(folder, user="shop")) == {("007", "tea"), ("7", "jam")}
    assert Interactions.read(folder, time="day").times.max() == 1_556_755_200_000_000


def test_folders_that_are_no_tables_say_why(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"The folder '.*empty' has no files of data; check the pa"):
        pairs(tmp_path / "empty")
    put(tmp_path, "text/part-00000.csv", CSV)
    with pytest.raises(DataError, match=r"files that are not Parquet: 'part-00000.csv' \(.csv\)"):
        pairs(tmp_path / "text")
    delta = spark(tmp_path / "delta")
    put(delta, "_delta_log/0.json", "{}")
    with pytest.raises(DataError, match=r"is a Delta table, .* Read it with `polars.read_delta`"):
        pairs(delta)
    other = spark(tmp_path / "other")
    pl.DataFrame({"x": [1]}).write_parquet(other / "part-00002.parquet")
    with pytest.raises(DataError, match=r"other' cannot be read: "):
        pairs(other)


# pipes


@contextmanager
def piped(data):
    """The path under which a shell passes a pipe, as in ``<(cat log.csv)``."""
    out, into = os.pipe()

    def write():
        with os.fdopen(into, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield f"/dev/fd/{out}"
    finally:
        os.close(out)
        writer.join()


def parquet():
    file = io.BytesIO()
    FRAME.write_parquet(file)
    return file.getvalue()


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs /dev/fd")
@pytest.mark.parametrize(
    "data",
    [
        CSV.encode(),
        CSV.replace(",", "\t").encode(),
        gzip.compress(CSV.encode()),
        ("sep=;\n" + CSV.replace(",", ";")).encode(),
        b'{"user": "bob", "item": "tea"}\n{"user": "ann", "item": "tea"}\n'
        b'{"user": "bob", "item": "jam"}\n',
        parquet(),
    ],
    ids=["csv", "tsv", "gzip", "declared", "json", "parquet"],
)
def test_a_pipe_is_read_by_what_is_in_it(data):
    with piped(data) as path:
        assert pairs(path) == PAIRS


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs /dev/fd")
def test_errors_name_the_pipe_and_not_its_copy(tmp_path):
    with piped(b"bob;tea\nann;tea\n") as path:
        assert len(pairs(path, separator=";", has_header=False)) == 2
    for data, message in (
        (b"user,item\nbob,tea,1\n", r"Line 2 of '{}' has 3 fields"),
        (b"user,item\nbob,\n", r"line 2 of '{}' has None"),
        (b"user|item\nbob|tea\n", r"The format of '{}' is not obvious .* pass `separator`"),
        (b"\x28\xb5\x2f\xfdxyz", r"'{}' is compressed with zstd\. Unpack it"),
        (b"", r"'{}' is empty"),
        (b"user,item\n", r"'{}' has the names of columns, but no rows"),
    ):
        with piped(data) as path, pytest.raises(DataError, match=message.format(path)):
            pairs(path)
    fifo = tmp_path / "pipe.csv"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text(CSV))
    writer.start()
    assert pairs(fifo) == PAIRS
    writer.join()


# content that the suffix does not say


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_without_the_suffix_is_unpacked(tmp_path, pack):
    assert pairs(put(tmp_path, "a.csv", pack(CSV.encode()))) == PAIRS
    assert pairs(put(tmp_path, "a.txt", pack(CSV.encode())), separator=",") == PAIRS
    lines = b'{"user": "ann", "item": "tea"}\n'
    assert pairs(put(tmp_path, "a.jsonl", pack(lines))) == [("ann", "tea")]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.zst", "a.jsonl", "a", "a.xlsx"])
def test_other_files_are_named_for_what_they_are(tmp_path, name):
    for data, message in {
        b"\x28\xb5\x2f\xfd....": r"is compressed with zstd\. Unpack it with `zstd -d`",
        b"PK\x03\x04....": r"is a zip archive or an Excel workbook\. Unpack the archive, or save",
        b"PAR1....": r"is a Parquet file\. Give it the suffix \.parquet",
        b"ARROW1\0\0....": r"is an Arrow file\. Give it the suffix \.arrow",
    }.items():
        with pytest.raises(DataError, match=rf"'.*{name}' {message}"):
            pairs(put(tmp_path, name, data))


def test_lines_of_python_say_how_to_make_json_of_them(tmp_path):
    for line in ("{'user': 'ann', 'item': 'tea'}", "{u'user': u'ann'}", " { 'user': 1}",
                 '{"user": "ann", "item": None}', '{"user": "it\'s", \'item\': True}'):  # fmt: skip
        path = put(tmp_path, "a.json", line + "\n")
        message = r"Line 1 of .* is not JSON .* dict of Python.*json\.dumps\(ast\.literal_eval"
        with pytest.raises(DataError, match=message):
            pairs(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_a_header_without_rows_is_said_to_be_one(tmp_path, name):
    path = tmp_path / name
    empty = FRAME.head(0)
    write = {"csv": empty.write_csv, "tsv": lambda p: empty.write_csv(p, separator="\t"),
             "parquet": empty.write_parquet, "arrow": empty.write_ipc}[name[2:]]  # fmt: skip
    write(path)
    with pytest.raises(EmptyDataError, match=rf"'.*{name}' has the names of columns, but no rows"):
        pairs(path)
    with pytest.raises(EmptyDataError, match="The table has the names of columns, but no rows"):
        prepare(scan(path, tmp_path))
    with pytest.raises(EmptyDataError, match="The table has the names of columns, but no rows"):
        prepare(empty)


# the first line


@pytest.mark.parametrize(
    "line", ["196,242", "ann,tea", "u1,i1", "who,what", "007,x", "3.5,2", "2019-05-01,7", "a,user"]
)
def test_a_first_line_that_may_be_data_is_not_taken_for_a_header(tmp_path, line):
    path = put(tmp_path, "a.csv", f"{line}\n5,6\n")
    known = "user" in line
    hint = "pass its name as `item=`" if known else r"first line of the file is data, pass `has_he"
    with pytest.raises(MissingColumnError, match=hint):
        pairs(path)
    first, second = line.split(",")
    assert set(pairs(path, has_header=False)) == {(first, second), ("5", "6")}
    assert pairs(path, user=first, item=second) == [("5", "6")]


def test_a_known_name_is_a_header_and_other_formats_have_one(tmp_path):
    assert pairs(put(tmp_path, "a.csv", CSV)) == PAIRS
    assert pairs(put(tmp_path, "b.csv", "item_id,UserID\ntea,ann\n")) == [("ann", "tea")]
    FRAME.rename({"user": "who", "item": "what"}).write_parquet(tmp_path / "a.parquet")
    assert pairs(tmp_path / "a.parquet") == PAIRS
    wide = put(tmp_path, "c.csv", "196,242,3\n186,302,3\n")
    with pytest.raises(MissingColumnError, match=r"pass its name as `user=`.*`has_header=False`"):
        pairs(wide)


def test_another_separator_is_not_taken_for_a_missing_header(tmp_path):
    for mark in ";|\t":
        path = put(tmp_path, "a.csv", CSV.replace(",", mark))
        with pytest.raises(MissingColumnError, match=r"It is a single column: check `separator`\."):
            pairs(path)
        assert pairs(path, separator=mark) == PAIRS


def test_a_number_where_a_name_is_expected_is_data(tmp_path):
    path = put(tmp_path, "a.csv", "196,242,3\n186,302,3\n")
    with pytest.raises(
        MissingColumnError, match=r"has the number '196' where the name of column 0"
    ):
        pairs(path, user=0, item=1)
    numbered = put(tmp_path, "b.csv", "0,1\nann,tea\n")  # as pandas writes a table without names
    assert pairs(numbered, user=0, item=1) == [("ann", "tea")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_that_excel_names_is_understood(tmp_path, mark, encoding, end):
    for declared in (f"sep={mark}", f'"sep={mark}"', f"SEP={mark}"):
        text = (declared + "\n" + CSV.replace(",", mark)).replace("\n", end)
        path = put(tmp_path, "a.csv", text.encode(encoding))
        form = {} if encoding.startswith("utf-8") else {"encoding": encoding}
        assert pairs(path, **form) == PAIRS
        assert pairs(path, separator=mark, **form) == PAIRS
        raw = scan(path, tmp_path, has_header=False, **form)
        assert raw.rows.collect().row(0) == ("user", "item")
        assert raw.where(1) == f"line 3 of '{path}'"
    bad = put(tmp_path, "b.csv", f"sep={mark}\nuser{mark}item\nann\n")
    with pytest.raises(DataError, match=r"Line 3 of '.*b.csv' has 1 field where the first has 2"):
        pairs(bad)


def test_a_name_that_only_looks_like_a_declaration_is_a_name(tmp_path):
    for header in ("sep=,user,item", "sep=;,user,item", "sep,user,item"):
        path = put(tmp_path, "a.csv", f"{header}\nx,ann,tea\n")
        assert pairs(path) == [("ann", "tea")]

"""One door for files of every kind."""

import gzip
import io
import random
import re

import polars as pl
import pytest

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.readers import reading, scan

FRAME = pl.DataFrame({"a": ["1", "3"], "b": ["2", None]})
ROWS = FRAME.rows()


def packed(method, **options):
    file = io.BytesIO()
    getattr(FRAME, method)(file, **options)
    return file.getvalue()


CSV, TSV = b"a,b\n1,2\n3,\n", b"a\tb\n1\t2\n3\t\n"
JSON = b'{"a": "1", "b": "2"}\n{"a": "3"}\n'
PARQUET, ARROW = packed("write_parquet"), packed("write_ipc")


def put(folder, data, name):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "where"),
    [
        ("f.csv", CSV, "line 3"),
        ("f.CSV", CSV, "line 3"),
        ("f.tsv", TSV, "line 3"),
        ("f.tab", TSV, "line 3"),
        ("f.1.inter", TSV, "line 3"),
        ("f.csv.gz", gzip.compress(CSV, mtime=0), "line 3"),
        ("f.jsonl", JSON, "line 2"),
        ("f.ndjson", JSON, "line 2"),
        ("f.json", JSON, "line 2"),
        ("f.json.gz", gzip.compress(JSON, mtime=0), "line 2"),
        ("f.parquet", PARQUET, "row 2"),
        ("f.pq", PARQUET, "row 2"),
        ("f[1].Parquet", PARQUET, "row 2"),
        ("f.arrow", ARROW, "row 2"),
        ("*.feather", ARROW, "row 2"),
        ("f.ipc", ARROW, "row 2"),
        ("f.ipc", packed("write_ipc", compression="zstd"), "row 2"),
    ],
)
def test_every_kind_of_file(tmp_path, name, data, where):
    path = put(tmp_path, data, name)
    for given in (path, str(path)):
        raw = scan(given, tmp_path)
        assert raw.rows.collect().rows() == ROWS
        assert raw.where(1) == f"{where} of '{path}'"
        assert raw.items is None
        assert raw.rejected.height == 0
    chosen = scan(path, tmp_path, columns=["b", "a"]).rows.collect()
    assert chosen.equals(FRAME.select("b", "a"))
    assert scan(path, tmp_path, columns=("b",)).rows.collect().equals(FRAME.select("b"))
    with pytest.raises(MissingColumnError, match=r"'c'; there are 'a', 'b'\."):
        scan(path, tmp_path, columns=["a", "c"])
    with pytest.raises(OptionError, match="`columns` must be a sequence of one or more distinct"):
        scan(path, tmp_path, columns=["a", "a"])


def test_options_of_text(tmp_path):
    def rows(data, name="f.csv", **form):
        return scan(put(tmp_path, data, name), tmp_path, **form).rows.collect().rows()

    assert rows(CSV, "u.data", separator=",") == rows(CSV, "f.tsv", separator=",") == ROWS
    assert rows(CSV, "f", separator=",") == ROWS
    assert rows(CSV, has_header=False) == [("a", "b"), *ROWS]
    assert rows("a,b\né,2\n".encode("latin-1"), encoding="latin-1") == [("é", "2")]
    assert rows(b'a,b\n1,"2"\n') == [("1", "2")]
    assert rows(b'a,b\n1,"2"\n', quotes=False) == [("1", '"2"')]
    assert rows(b'a\tb\n1\t"2"\n', "f.tsv") == [("1", '"2"')]
    assert rows(b'a\tb\n1\t"2"\n', separator="\t") == [("1", '"2"')]
    assert rows(b'a\tb\n1\t"2"\n', "f.tsv", quotes=True) == [("1", "2")]
    with pytest.raises(OptionError, match="`separator` must be one ASCII character"):
        rows(CSV, separator="")


@pytest.mark.parametrize("name", ["f.json", "f.json.gz", "f.parquet", "f.feather"])
def test_options_of_text_are_refused_for_other_files(tmp_path, name):
    kind = {"json": "JSON lines", "parquet": "Parquet", "feather": "Arrow"}[name.split(".")[1]]
    options = {"separator": ",", "has_header": False, "encoding": "utf-8", "quotes": True}
    for option, value in options.items():
        with pytest.raises(OptionError, match=rf"^`{option}` can be .* text only; .* is {kind}\."):
            scan(tmp_path / name, tmp_path, **{option: value})
    with pytest.raises(OptionError, match=r"^`separator` and `has_header` and `encoding` and"):
        scan(tmp_path / name, tmp_path, **options)


@pytest.mark.parametrize("name", ["f", "f.txt", "f.gz", "f.parquet.gz", "f.zip", ".csv"])
def test_a_file_of_an_unknown_kind(tmp_path, name):
    known = r"one of .csv, .tsv, .tab, .inter, .jsonl, .ndjson, .json, .parquet, .pq, .arrow, "
    with pytest.raises(DataError, match=known) as caught:
        scan(put(tmp_path, CSV, name), tmp_path)
    assert repr(str(tmp_path / name)) in str(caught.value)
    assert "pass `separator`" in str(caught.value)


@pytest.mark.parametrize("name", ["f.csv", "f.json", "f.parquet", "f.arrow"])
def test_a_file_that_is_not_there_or_empty(tmp_path, name):
    with pytest.raises(DataError, match=rf"There is no file '.*{name}'; check the path"):
        scan(tmp_path / name, tmp_path)
    with pytest.raises(EmptyDataError, match=rf"{name}' is empty; get the file again"):
        scan(put(tmp_path, b"", name), tmp_path)


@pytest.mark.parametrize(("name", "data"), [("f.parquet", PARQUET), ("f.arrow", ARROW)])
def test_damaged_files_give_one_error_or_rows(tmp_path, name, data, capfd):
    """Polars panics over some of these, and says so on stderr."""
    rng = random.Random(0)
    for case in range(60):
        damaged = bytearray(data)
        if case % 2:
            damaged = damaged[: rng.randrange(len(data))]
        else:
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = put(tmp_path, damaged, f"{case}-{name}")
        try:
            rows = scan(path, tmp_path).rows
            with reading(path):
                rows.collect(engine="streaming")
        except DataError as error:
            assert repr(str(path)) in str(error)  # noqa: PT017
            assert re.search(r"get the file again|Save it again", str(error))  # noqa: PT017
        else:
            assert not case % 2
    capfd.readouterr()


def test_an_arrow_stream_is_no_arrow_file(tmp_path):
    stream = packed("write_ipc_stream")
    with pytest.raises(DataError, match=r"f.arrow' is not an Arrow file: perhaps an Arrow stream"):
        scan(put(tmp_path, stream, "f.arrow"), tmp_path)


def test_what_is_no_fault_of_the_file_is_not_said_to_be(tmp_path):
    for error in (OptionError("this"), EmptyDataError("that"), DataError("f.csv has no x")):
        with pytest.raises(type(error), match=f"^{error}$"), reading("f.csv"):
            raise error
    for kind in (DataError, MissingColumnError):
        with pytest.raises(kind, match=r"^'f.csv': no x$"), reading("f.csv"):
            raise kind("no x")
    with pytest.raises(ZeroDivisionError), reading(tmp_path / "f.csv"):
        _ = 1 // 0
    for error in (OSError("slow\ndisk"), pl.exceptions.PanicException("slow")):
        message = r"f.csv' cannot be read: slow\. It is damaged or cut off"
        with pytest.raises(DataError, match=message), reading(str(tmp_path / "f.csv")):
            raise error

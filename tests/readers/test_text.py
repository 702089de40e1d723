"""Separated text, against Python's csv module and a regular expression for what is well-formed."""

import bz2
import csv
import errno
import gzip
import io
import lzma
import random
import re
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.errors import DataError, EmptyDataError, OptionError, StoreError
from nearfar.readers import text
from nearfar.readers.structure import Structure
from nearfar.readers.text import scan_text

DEFAULT = text.CHUNK
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


def write(folder, data, name="f.csv"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(folder, data, chunk=DEFAULT, name="f.csv", **form):
    """Columns and rows of a file with this content, read in chunks of so many bytes."""
    with patch.object(text, "CHUNK", chunk):
        frame = scan_text(write(folder, data, name), folder, **form).rows.collect()
    assert set(frame.dtypes) <= {pl.String}
    return frame.columns, frame.rows()


def oracle(data, separator=","):
    """Records as the csv module reads them, without empty lines, and null for empty fields."""
    records = csv.reader(io.StringIO(data, newline=""), delimiter=separator, strict=True)
    return [tuple(field or None for field in record) for record in records if record]


# well-formed files

CHARACTERS = "abx1 ,;\t|'\"\n\r\\#\x01\x1a\x1f\x0b\x85\u2028é€𝄞\ufeffefsnr"
fields = st.text(st.sampled_from(CHARACTERS), max_size=6)


@st.composite
def files(draw, quotes=True):
    """Records, and a text that says them in one of the many ways."""
    separator = draw(st.sampled_from(",;\t| x\x1a\x1f\x01"))
    width = draw(st.integers(1, 4))
    tidy = draw(st.booleans())  # then polars may read it in place
    field = (
        fields if quotes else fields.map(lambda f: re.sub(f"[\n\r{re.escape(separator)}]", "", f))
    )
    records = draw(
        st.lists(st.lists(field, min_size=width, max_size=width), min_size=1, max_size=6)
    )
    records[0][0] = records[0][0].lstrip("\ufeff")  # a byte order mark
    parts = []
    for record in records:
        parts += [] if tidy else draw(st.lists(st.sampled_from(["\n", "\r\n"]), max_size=1))
        parts += [separator.join(draw(written(f, separator, width, quotes)) for f in record)]
        parts += [draw(st.sampled_from(["\n", "\r\n"]))]
    if not quotes:  # what cannot be said without them
        records = [record for record in records if record != [""]]
    whole = "".join(parts)
    if draw(st.booleans()) and parts[-2]:
        whole = whole.removesuffix(parts[-1])
    return [tuple(f or None for f in record) for record in records], whole, separator


def written(field, separator, width, quotes):
    quoted = '"' + field.replace('"', '""') + '"'
    if not quotes:
        return st.just(field)
    if (width == 1 and not field) or set(field) & {separator, '"', "\n", "\r"}:
        return st.just(quoted)
    return st.sampled_from([field, field, quoted])


@given(files(), st.integers(1, 9), st.sampled_from([*PACKERS]), st.booleans())
def test_what_is_written_is_read(folder, file, chunk, suffix, marked):
    records, whole, separator = file
    assert oracle(whole, separator) == records  # the test writes what it means
    data = PACKERS[suffix](b"\xef\xbb\xbf" * marked + whole.encode())
    found = read(folder, data, chunk, f"f.csv{suffix}", separator=separator, has_header=False)
    assert found == ([f"column_{i + 1}" for i in range(len(records[0]))], records)


@given(files(quotes=False), st.integers(1, 9))
def test_without_quotes_a_quote_is_a_character(folder, file, chunk):
    records, whole, separator = file
    if not records:
        with pytest.raises(EmptyDataError, match="is empty"):
            read(folder, whole, chunk, separator=separator, quotes=False)
        return
    _, found = read(folder, whole, chunk, separator=separator, has_header=False, quotes=False)
    assert found == records


@given(files(), st.sampled_from(["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "gb18030", "utf-7"]),
       st.integers(1, 9))  # fmt: skip
def test_other_encodings(folder, file, encoding, chunk):
    records, whole, separator = file
    form = {"separator": separator, "has_header": False, "encoding": encoding}
    assert read(folder, whole.encode(encoding), chunk, **form)[1] == records


@given(files(), st.integers(1, 9))
def test_the_header_and_the_lines_of_rows(folder, file, chunk):
    records, whole, separator = file
    names = [field or "" for field in records[0]]
    if len(set(names)) < len(names):
        with pytest.raises(DataError, match="more than once"):
            read(folder, whole, chunk, separator=separator)
        return
    assert read(folder, whole, chunk, separator=separator) == (names, records[1:])
    raw = scan_text(folder / "f.csv", folder, separator=separator)
    lines = whole.split("\n")
    for row, record in enumerate(records[1:]):
        line = int(re.fullmatch("line (.*) of '.*f.csv'", raw.where(row))[1])
        rest = "\n".join(lines[line - 1 :])
        assert oracle(rest, separator)[0] == record
        assert not rest.startswith(("\n", "\r\n"))
    assert raw.where(len(records)).startswith(f"row {len(records) + 1} of ")


def test_the_plain_form_has_neither_quotes_nor_empty_lines():
    for data, plain in {
        b'a;"b;"";"\r\n\n;"\r\n\x1a\x1f"': b'a\x1fb;";\n\x1f\x1ar\x1an\x1as\x1af\n',
        b'""\n\n""\r\n"x"\nx\n""': b"\x1ae\n\x1ae\nx\x1ae\nx\n\x1ae\n",
    }.items():
        machine = Structure(";", quotes=True)
        written = b"".join(
            bytes(machine.feed(data[i : i + 1], copying=True)) for i in range(len(data))
        )
        assert written + bytes(machine.end(copying=True)) == plain
        assert machine.escaped
        assert machine.irregular


# well-formed and not

FIELD = r'(?:"(?:[^"]|"")*"|[^,"\r\n]*)'
WELL_FORMED = re.compile(rf"(?:{FIELD}(?:,{FIELD})*\r?\n)*(?:{FIELD}(?:,{FIELD})*)?")


@given(st.text(st.sampled_from('a,,"\n\n\r'), max_size=12), st.integers(1, 4))
def test_any_text_is_read_as_csv_does_or_refused(folder, whole, chunk):
    if WELL_FORMED.fullmatch(whole):
        records = oracle(whole)
        if len({len(record) for record in records}) == 1:
            assert read(folder, whole, chunk, has_header=False)[1] == records
            return
    with pytest.raises(DataError) as caught:
        read(folder, whole, chunk, has_header=False)
    assert isinstance(caught.value, EmptyDataError) == (not whole.strip("\r\n") and not
                                                        re.search("\r(?!\n)", whole))  # fmt: skip


@given(st.binary(max_size=20), st.integers(1, 4), st.booleans())
def test_any_bytes_are_read_or_refused(folder, data, chunk, quotes):
    try:
        _, found = read(folder, data, chunk, has_header=False, quotes=quotes)
    except DataError:
        return
    assert not quotes or found == oracle(data.decode("utf-8-sig"))


FAULTS = {
    "a,b\n1,2\n\n1,2,3\n": "Line 4 of '{}' has 3 fields where the first has 2. Check `separator`",
    "a,b\n1,2\n\n1\n": "Line 4 of '{}' has 1 field where the first has 2. Check `separator`",
    'a,b\n"1\n\n",2\n"\n"\n': "Line 5 of '{}' has 1 field where the first has 2. ",
    "a,b\n1,2": None,
    "a,b\n1,2\r": "Line 2 of '{}' has a carriage return without a line feed after it. Convert",
    "a,b\r1,2\r": "Line 1 of '{}' has a carriage return without",
    "a,b\n\r": "Line 2 of '{}' has a carriage return without",
    "a,b\n\r\r\n": "Line 2 of '{}' has a carriage return without",
    "a,b\n1,2\r\r\n": "Line 2 of '{}' has a carriage return without",
    "a,b\n1,\x002\n": "Line 2 of '{}' has a NUL byte. Pass the `encoding` of the file",
    'a,b\n1,"\n\x00"\n': "Line 3 of '{}' has a NUL byte.",
    'a,b\n1,x"\n': "Line 2 of '{}' has a quote inside a field that does not start with one. Put "
    "the field in quotes and double those inside, or switch `quotes` off",
    'a,b\n1, "x"\n': "Line 2 of '{}' has a quote inside",
    'a,b\n1,"x\n\n" \n': "Line 4 of '{}' has text after the end of the quoted field that starts in "
    "line 2. Double the quotes inside the field, check `separator`, or switch `quotes` off",
    'a,b\n1,"x""\n\n"",\n': "Line 2 of '{}' starts a quoted field that does not end. Close it, or",
    "a,b,a\n1,2,3\n": "The header of '{}' has 'a' more than once. Rename the columns, check `separ",
    'a,"",\n1,2,3\n': "The header of '{}' has '' more than once.",
}  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 5, DEFAULT])
@pytest.mark.parametrize("suffix", PACKERS)
def test_every_fault_is_named_with_its_line(folder, chunk, suffix):
    for whole, message in FAULTS.items():
        name = f"f.csv{suffix}"
        data = PACKERS[suffix](whole.encode())
        if message is None:
            assert read(folder, data, chunk, name) == (["a", "b"], [("1", "2")])
            continue
        with pytest.raises(DataError) as caught:
            read(folder, data, chunk, name)
        assert str(caught.value).startswith(message.format(folder / name)), whole


@pytest.mark.parametrize("chunk", [1, 3, DEFAULT])
@pytest.mark.parametrize(
    ("data", "encoding", "line", "reason"),
    [
        (b"a,b\n1,\xe9\n", "utf-8", 2, "byte 0xe9: invalid continuation byte"),
        (b"a,b\n1,2\n3,\xe2\x82", "utf-8", 3, "byte 0xe2: unexpected end of data"),
        (b"a,b\n1,\xff\n", "utf-8-sig", 2, "byte 0xff: invalid start byte"),
        (b"a,b\n1,\xe9\n", "ascii", 2, "byte 0xe9: ordinal not in range(128)"),
        (b"a,b\n1,2\n3,\x81\n", "cp1252", 3, "byte 0x81: character maps to <undefined>"),
        ("a,b\n1,2\n3,4\n".encode("utf-16")[:-1], "utf-16", 3, "byte 0x0a: truncated data"),
        ("a,b\n1,".encode("utf-16-le") + b"\x00\xdc\n\x00", "utf-16-le", 2, "byte 0x00: illegal"),
        (b"a,b\n1,+2AA-\n", "utf-7", 2, "surrogates not allowed"),
        (b"a,b\n1,\x82\n", "shift_jis", 2, "illegal multibyte sequence"),
    ],
)
def test_a_line_that_cannot_be_decoded(folder, data, encoding, line, reason, chunk):
    with pytest.raises(DataError, match="Pass the `encoding` of the file, such as") as caught:
        read(folder, data, chunk, encoding=encoding)
    assert str(caught.value).startswith(f"Line {line} of '{folder / 'f.csv'}' is not {encoding} (")
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\r\n\n"])
def test_an_empty_file(folder, data):
    for name, pack in PACKERS.items():
        with pytest.raises(EmptyDataError, match=r"f.csv.*' is empty; get the file again"):
            read(folder, pack(data), name=f"f.csv{name}")


def test_a_header_alone_is_a_table_without_rows(folder):
    assert read(folder, "a,b\n") == (["a", "b"], [])
    assert read(folder, '"a\n",b') == (["a\n", "b"], [])


# options


@pytest.mark.parametrize("separator", ["", "::", "é", '"', "\n", "\r", "\0", None, 7])
def test_an_impossible_separator(folder, separator):
    with pytest.raises(OptionError, match="`separator` must be one ASCII character, and neither"):
        read(folder, "a,b\n", separator=separator)


@pytest.mark.parametrize("encoding", ["latin-99", "hex", "rot13", "undefined", "a\0", "", None, 8])
def test_an_unknown_encoding(folder, encoding):
    with pytest.raises(OptionError, match="`encoding` must be one that Python knows, such as"):
        read(folder, "a,b\n", encoding=encoding)


# files


def test_a_plain_file_is_read_in_place_and_any_other_from_a_copy(tmp_path):
    def copies(data, name="f.csv", **form):
        scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        assert read_in(scratch, data, name, **form) == [("1", "2")]
        return len(list(scratch.iterdir()))

    def read_in(scratch, data, name, **form):
        return scan_text(write(tmp_path, data, name), scratch, **form).rows.collect().rows()

    plain = b"a,b\r\n1,2"
    assert copies(plain) == copies(b"\xef\xbb\xbf" + plain) == 0
    assert copies(plain, encoding="ascii") == copies(plain, encoding="UTF8") == 0
    assert copies(plain, quotes=False) == copies(b'a,"b\r\n1,2', quotes=False) == 0
    assert copies(gzip.compress(plain), "f.csv.gz") == copies(plain, encoding="latin-1") == 1
    assert copies(b"a,b\n\n1,2") == copies(b'a,b\n"1",2') == 1
    assert copies(b"x^,b\n1,2") == copies(b"x\x01,b\n1,2") == 1  # zlib, thinks polars


@pytest.mark.parametrize("name", ["*.csv", "[a-z].csv", "?.csv", "~.csv", "a=1.csv", "%41 é.csv"])
def test_names_of_files_are_taken_literally(tmp_path, name):
    write(tmp_path, "a,b\n9,9\n", "x.csv")
    assert read(tmp_path, "a,b\n1,2\n", name=name)[1] == [("1", "2")]


def test_a_file_that_is_not_there_or_damaged(folder):
    with pytest.raises(DataError, match=r"There is no file '.*nowhere.csv'; check the path"):
        scan_text(folder / "nowhere.csv", folder)
    with pytest.raises(DataError, match="There is no file"):
        scan_text(folder, folder)
    data = b"".join(b"%d,%d\n" % (i, i * i) for i in range(5000))
    for suffix, pack in PACKERS.items():
        if not suffix:
            continue
        packed = bytearray(pack(data))
        flipped = packed[:]
        flipped[len(packed) // 2] ^= 0xFF
        for damaged in (packed[:-9], packed[:5], flipped, data):
            with pytest.raises(DataError, match=f"f.csv{suffix}' .*Get the file again"):
                read(folder, bytes(damaged), name=f"f.csv{suffix}")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_files_of_several_streams(folder, suffix):
    pack, name = PACKERS[suffix], f"f.csv{suffix}"
    first, second = pack(b"a,b\n1,2\n"), pack(b"3,4\n")
    expected = (["a", "b"], [("1", "2"), ("3", "4")])
    for padding in (b"", b"\0" * 8, b"\0" * 2**18):
        assert read(folder, first + second + padding, name=name) == expected
    assert read(folder, first + b"\0" * 8 + second, name=name) == expected
    # what follows a whole stream and is none must not be taken for the end
    for damaged in (second[1:], b"x" + second[1:], second[:-1], second + b"x"):
        with pytest.raises(DataError, match=rf"{name}' .*Get the file again"):
            read(folder, first + damaged, name=name)


def test_a_scratch_folder_that_cannot_be_written(folder):
    path = write(folder, "a,b\n\n1,2\n")
    with pytest.raises(StoreError, match=r"scratch file .* cannot be written: .*TMPDIR"):
        scan_text(path, folder / "nowhere")

    class Full(io.BytesIO):
        name = "full.csv"

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with (
        patch.object(Path, "open", lambda *_: Full()),
        pytest.raises(
            StoreError, match=r"'full.csv' cannot be written: .*No space left.*Free some"
        ),
    ):
        scan_text(path, folder)


def test_rows_that_polars_does_not_find_are_missed(folder):
    path = write(folder, "a,b\n1,2\n3,4\n")
    scanned = text._scanned
    with (
        patch.object(text, "_scanned", lambda *args, **form: scanned(*args, **form).head(1)),
        pytest.raises(DataError, match=r"has 2 rows, of which 1 could be read. If the file has"),
    ):
        scan_text(path, folder)


# large files, which polars cuts up among its threads


def test_a_large_plain_file(folder):
    rng = random.Random(0)
    records = [
        (str(i), rng.choice(["x", None, "é" * 30]), str(rng.random())) for i in range(60_000)
    ]
    whole = "".join(",".join(f or "" for f in r) + rng.choice(["\n", "\r\n"]) for r in records)
    assert len(whole) > 2**21
    assert oracle(whole) == records
    assert read(folder, whole, has_header=False)[1] == records
    assert read(folder, whole, 2**16, has_header=False)[1] == records


def test_a_large_file_full_of_quotes_and_line_ends(folder):
    rng = random.Random(1)
    hard = ['"', '""', "\n", "\r\n", ",", '"\n"', 'a,"b"\n', "\n\n\n", ""]
    records = [[str(i), "".join(rng.choices(hard, k=9)), "é"] for i in range(60_000)]
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["a", "b", "c"], *records])
    whole = file.getvalue()
    assert len(whole) > 2**21
    columns, found = read(folder, whole)
    assert (columns, found) == (["a", "b", "c"], [tuple(f or None for f in r) for r in records])
    assert read(folder, gzip.compress(whole.encode()), 2**16, "f.csv.gz") == (columns, found)
    line = whole[: whole.index("\n59999,")].count("\n") + 2
    assert scan_text(folder / "f.csv", folder).where(59_999) == f"line {line:,} of '{folder}/f.csv'"


@pytest.mark.parametrize("filling", ["x", "é", "\n", '""', "x,"])
def test_fields_of_many_mib(folder, filling):
    long = filling * (2**23 // len(filling))
    whole = f'a,b\n1,"{long}"\n2,3\n' if filling not in "xé" else f"a,b\n1,{long}\n2,3\n"
    assert read(folder, whole)[1] == [("1", long.replace('""', '"')), ("2", "3")]


def test_thousands_of_columns(folder):
    names = [f"c{i}" for i in range(5000)]
    columns, found = read(folder, ",".join(names) + "\n" + "," * 4999 + "\n")
    assert (columns, found) == (names, [(None,) * 5000])

"""JSON lines, against Python's json module."""

import gzip
import json
import re
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError, StoreError
from nearfar.readers import spool
from nearfar.readers.json_lines import scan_json_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("json")


def scan(folder, data, columns=None, name="f.jsonl"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return scan_json_lines(path, folder, columns)


def read(folder, data, columns=None, name="f.jsonl"):
    return scan(folder, data, columns, name).rows.collect()


whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False, allow_infinity=False)
COLUMNS = {
    "text": (pl.String, st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "whole": (pl.Int64, whole),
    "real": (pl.Float64, real),
    "mixed": (pl.Float64, real | st.integers(-(2**53), 2**53)),
    "flag": (pl.Boolean, st.booleans()),
}
nested = st.recursive(
    st.none() | st.booleans() | st.floats().filter(lambda x: x - x == 0) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
)


@st.composite
def tables(draw):
    """Objects with any of the columns, null or absent, among others; and a text that says them."""
    kinds = {name: st.none() | values for name, (_, values) in COLUMNS.items()}
    objects = draw(st.lists(st.fixed_dictionaries({}, optional={**kinds, "other": nested}),
                            min_size=1, max_size=8))  # fmt: skip
    parts = []
    for found in objects:
        parts += draw(st.lists(st.sampled_from(["\n", " \t\r\n"]), max_size=1))
        said = json.dumps(found, ensure_ascii=draw(st.booleans()))
        parts += [
            draw(st.sampled_from(["", " "])),
            said,
            draw(st.sampled_from(["\n", "\r\n", " \n"])),
        ]
    return objects, "".join(parts)


@given(tables(), st.integers(1, 3))
def test_objects_are_read_as_json_does(folder, table, batch):
    objects, data = table
    there = [name for name in COLUMNS if any(name in found for found in objects)]
    if not there:
        return
    with patch.object(spool, "BATCH", batch):
        frame = read(folder, data, there)
    assert frame.columns == there
    for name in there:
        values = [found.get(name) for found in objects]
        kept = [value for value in values if value is not None]
        dtype = COLUMNS[name][0] if kept else pl.String
        if name == "mixed" and kept and all(type(value) is int for value in kept):
            dtype = pl.Int64
        assert frame[name].dtype == dtype
        assert frame[name].to_list() == values
        if name == "real":
            assert [*map(str, frame[name])] == [*map(str, values)]  # -0.0 too


@given(tables())
def test_by_default_the_columns_are_the_scalars_of_the_first_object(folder, table):
    objects, data = table
    first = objects[0]
    names = [name for name in first if isinstance(first[name], (str, int, float))]
    try:
        frame = read(folder, data)
    except DataError as error:
        # a later value of "other" may be of any kind
        assert not names or "other" in names, error  # noqa: PT017
        return
    assert frame.columns == names
    assert frame.height == len(objects)


@given(tables())
def test_where_a_row_came_from(folder, table):
    objects, data = table
    name = next(iter(objects[0]), None)
    if name in {None, "other"}:
        return
    raw = scan(folder, data, [name])
    for row, found in enumerate(objects):
        line = int(re.fullmatch("line (.*) of '.*f.jsonl'", raw.where(row))[1])
        assert json.loads(data.split("\n")[line - 1]) == found
    assert raw.where(len(objects)) == f"row {len(objects) + 1} of '{folder / 'f.jsonl'}'"


def test_compressed_and_marked_files(folder):
    data = b'\xef\xbb\xbf{"a": 1}\n{"a": 2}'
    expected = [(1,), (2,)]
    assert read(folder, data).rows() == expected
    assert read(folder, gzip.compress(data), name="f.json.gz").rows() == expected
    with pytest.raises(DataError, match=r"f.json.gz' is damaged or cut off.*Get the file again"):
        read(folder, gzip.compress(data)[:-9], name="f.json.gz")


DEEP = 100_000
FAULTS = {
    '{"a": 1': r"is not JSON (Expecting ',' delimiter, character 8). Put each object on a line of",
    '{"a": 1} {"a": 2}': "is not JSON (Extra data, character 10).",
    "{'a': 1}": "is not JSON (Expecting property name enclosed in double quotes, character 2).",
    "{": "is not JSON (",
    '{"a": "\t"}': "is not JSON (Invalid control character at, character 8).",
    "[1]": "is not a JSON object. Put each object on a line of its own.",
    "1": "is not a JSON object.",
    "null": "is not a JSON object.",
    '{"a": NaN}': "has NaN, which is not JSON. Write null, or drop the line.",
    '{"other": [-Infinity]}': "has -Infinity, which is not JSON.",
    '{"a": 1, "a": 1}': "has the key 'a' twice in one object. Correct the line.",
    '{"other": {"b": 1, "\\u0062": 2}}': "has the key 'b' twice in one object.",
    '{"a": 1e999}': "has a number in 'a' that is too large. Write it as text, or correct the line.",
    '{"a": 9223372036854775808}': "has an integer in 'a' that does not fit into 64 bits. Write it",
    '{"a": -9223372036854775809}': "has an integer in 'a' that does not fit into 64 bits.",
    '{"other": ' + "1" * 5000 + "}": "has an integer of thousands of digits. Write it as text.",
    '{"t": "\\ud800"}': "has half of a surrogate pair in 't', which is not a character. Correct",
    '{"a": {}}': "has an object in 'a', where only text, a number, true, false or null can be re",
    '{"a": []}': "has an array in 'a', where only text",
    '{"a": "1"}': "has text in 'a' where earlier lines have a number (line 2). Make them all of",
    '{"a": true}': "has true or false in 'a' where earlier lines have a number (line 2).",
    '{"t": 1}': "has a number in 't' where earlier lines have text (line 2).",
    '{"f": 0}': "has a number in 'f' where earlier lines have true or false (line 2).",
    '{"t": [' + "[" * DEEP + "]" * DEEP + "]}": "is nested too deeply. Correct or drop the line.",
    b'{"t": "\xe9"}': "is not UTF-8. Save the file as UTF-8.",
    '{"r": 9007199254740993}': "has a number in 'r' that is not compatible with that of line 2: "
    "one is a fraction, and the other an integer that would lose digits as a float. Write both",
    '{"long": 0.5}': "has a number in 'long' that is not compatible with that of line 2: one is a",
}  # fmt: skip


def test_nested_values_from_the_first_line_on(folder):
    for value in ("[]", '{"b": 1}'):
        with pytest.raises(DataError, match=r"Line 1 of .* in 'a', where only text"):
            read(folder, f'{{"a": {value}}}', ["a"])


@pytest.mark.parametrize("line", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_is_named_with_its_line(folder, line):
    fine = b'{"a": 1, "t": "x", "f": true, "r": 0.5, "long": 9007199254740993}'
    data = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(DataError) as caught:
        read(folder, b"\n".join([b"", fine, b" ", data, fine]))
    assert str(caught.value).startswith(f"Line 4 of '{folder / 'f.jsonl'}' {FAULTS[line]}")


def test_what_is_not_read_may_be_anything(folder):
    data = (
        '{"a": 1, "x": [], "y": 1}\n{"a": 2, "x": 1e999, "y": "\\ud800"}\n{"a": 3, "\\ud800": {}}'
    )
    assert read(folder, data, ["a"]).rows() == [(1,), (2,), (3,)]


def test_an_empty_file(folder):
    for data in ("", "\n \n", "\ufeff"):
        for columns in (None, ["a"]):
            with pytest.raises(EmptyDataError, match=r"f.jsonl' is empty; get the file again"):
                read(folder, data, columns)


def test_a_column_that_no_line_has(folder):
    data = '{"a": 1}\n{"b": null}'
    with pytest.raises(MissingColumnError, match=r"No line of '.*' has 'c'; there are 'a', 'b'\."):
        read(folder, data, ["a", "c"])
    with pytest.raises(MissingColumnError, match=r"No line of '.*' has 'c'; there are no keys\."):
        read(folder, "{}", ["c"])
    with pytest.raises(MissingColumnError, match=r"there are '\\ud800'\."):
        read(folder, '{"\\ud800": 1}', ["c"])
    assert read(folder, data, ["b"]).rows() == [(None,), (None,)]


@pytest.mark.parametrize("data", ["{}", '{"a": null, "b": []}', '{"\\ud800": 1}'])
def test_a_first_object_that_tells_no_columns(folder, data):
    with pytest.raises(DataError, match=r"Line 1 of .* Name the `columns` to read"):
        read(folder, data)


@pytest.mark.parametrize("columns", [[], "ab", ["a", "a"], ["\ud800"], [1]])
def test_columns_that_are_no_names(folder, columns):
    with pytest.raises(OptionError, match="`columns` must be a sequence of one or more distinct"):
        read(folder, '{"a": 1}', columns)


def test_a_scratch_folder_that_cannot_be_written(folder):
    scan(folder, '{"a": 1}')
    with pytest.raises(StoreError, match=r"scratch file .* cannot be written: .*TMPDIR"):
        scan_json_lines(folder / "f.jsonl", folder / "nowhere")
    with pytest.raises(DataError, match="There is no file"):
        scan_json_lines(folder / "nowhere.jsonl", folder)

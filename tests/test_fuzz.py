"""Thousands of spoilt files, each against an independent reading of the same bytes."""

import bz2
import codecs
import json
from contextlib import nullcontext
from dataclasses import replace

import narwhals.stable.v2 as nw
import pytest
from typer.testing import CliRunner

import nearfar.prepare as preparation
from fuzzing import TARGETS, FindingError, case, examine, run
from nearfar import readers
from nearfar.cli import app
from nearfar.datasets import columns, sieve
from nearfar.errors import DataError
from nearfar.prepare import pair_plan
from nearfar.readers import columnar, json_lines, lines, raw, text
from nearfar.runtime import store

EACH = 24
"""Cases of a target in the default run."""
MANY = 900
"""Those of the long run, which are others."""
WEIGHTS = {"text": 4, "json": 2}


def check(target, seeds, folder, capfd):
    outcomes = run(target, seeds, folder)
    capfd.readouterr()  # polars panics over some files, and says so
    # neither all well nor all spoilt, so that both answers were tried
    assert min(outcomes["read"], outcomes["refused"]) > len(seeds) / 10, outcomes


@pytest.mark.parametrize("target", TARGETS)
def test_spoilt_files_are_read_right_or_refused(target, tmp_path, capfd):
    check(target, range(EACH * WEIGHTS.get(target, 1)), tmp_path, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_thousands_of_spoilt_files(target, tmp_path, capfd):
    assert MANY * (len(TARGETS) + sum(WEIGHTS.values()) - len(WEIGHTS)) >= 15_000
    check(target, range(10**6, 10**6 + MANY * WEIGHTS.get(target, 1)), tmp_path, capfd)


def flags(one):
    """Give the flags of `nearfar prepare` for a case."""
    if "recipe" in one.form:
        return ["--recipe", one.form["recipe"]]
    switches = {
        "has_header": {False: "--no-header"},
        "quotes": {True: "--quotes", False: "--no-quotes"},
    }
    given = [known[one.form[name]] for name, known in switches.items() if name in one.form]
    for name in {"separator", "encoding"} & set(one.form):
        given += [f"--{name}", one.form[name]]
    return given if "has_header" in one.form else [*given, "--user", "user", "--item", "item"]


@pytest.mark.slow
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "folder"])
def test_the_command_reads_or_refuses(target, tmp_path, capfd):
    codes = set()
    for seed in range(2 * 10**6, 2 * 10**6 + 60):
        one, place, out = case(target, seed), tmp_path / f"{seed}", tmp_path / f"{seed}-out"
        place.mkdir()
        for name, data in one.files.items():
            (place / name).write_bytes(data)
        command = ["prepare", str(place / one.given), "-o", str(out), *flags(one)]
        result = CliRunner().invoke(app, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), one
        assert out.exists() == (result.exit_code == 0), one
        assert "Traceback" not in result.output, one
        codes.add(result.exit_code)
    capfd.readouterr()
    assert codes == {0, 1}


@pytest.mark.parametrize("target", TARGETS)
def test_a_case_is_made_of_its_name_and_number_alone(target):
    for seed in range(8):
        one, same = case(target, seed), case(target, seed)
        assert str(one) == str(same)
        assert one.files == same.files
    assert case(target, 1).files != case(target, 2).files


# does it find anything? faults of all kinds, and what the finding says


def without_last(frame):
    return frame.reverse().slice(1).reverse()


def drop_the_last_row(patch):
    rows = text._rows
    patch.setattr(text, "_rows", lambda *args: without_last(rows(*args)))


def drop_a_row_of_a_recipe(patch):
    spooled = columns.checked
    for name in ("amazon", "movielens"):
        patch.setattr(
            f"nearfar.datasets.{name}.checked",
            lambda *args, **how: without_last(spooled(*args, **how)),
        )


def swallow_a_rejected_line(patch):
    patch.setattr(sieve.Sieve, "rejected", property(lambda _: raw.nothing_rejected()))


def read_in_place_what_is_quoted(patch):
    patch.setattr(text.Structure, "irregular", property(lambda _: False))


def let_an_error_of_polars_through(patch):
    for module in (columnar, readers):
        patch.setattr(module, "reading", lambda _: nullcontext())


def take_damage_for_the_end(patch):
    patch.setitem(lines._OPENERS, ".bz2", bz2.open)


def guess_at_what_cannot_be_decoded(patch):
    strict = codecs.getincrementaldecoder
    patch.setattr(
        text.codecs, "getincrementaldecoder", lambda name: lambda: strict(name)("replace")
    )


def say_another_line(patch):
    fault = text._fault
    patch.setattr(text, "_fault", lambda *args: fault(*args).replace("Line ", "Line 9"))


def say_no_line(patch):
    patch.setattr(json_lines, "_at", lambda path, number, what: DataError(f"{path} {what}"))


def keep_the_last_of_two_keys(patch):
    patch.setattr(json_lines, "_without_repeats", dict)


def keep_the_latest_time(patch):
    patch.setattr(pair_plan, "earliest", lambda: nw.col("time").max())


def leave_out_who_is_at_the_threshold(patch):
    weighed = preparation.weighed

    def above(rows, rules):
        return weighed(rows, replace(rules, strictly=rules.min_value is not None))

    patch.setattr(preparation, "weighed", above)


def believe_a_manifest(patch):
    patch.setattr(store, "_check_seal", lambda *_: None)


def let_an_error_of_json_through(patch):
    patch.setattr(
        store, "_parsed", lambda folder: json.loads((folder / store.MANIFEST).read_text())
    )


def say_no_remedy(patch):
    patch.setattr(lines, "DataError", lambda said: DataError(said.split(":")[0]))


@pytest.mark.parametrize(
    ("fault", "target", "said"),
    [
        (drop_the_last_row, "text", "read\n"),
        (drop_a_row_of_a_recipe, "1m", "read\n"),
        (drop_a_row_of_a_recipe, "reviews", "read\n"),
        (swallow_a_rejected_line, "books", "read\n"),
        (swallow_a_rejected_line, "lastfm", "read\n"),
        (read_in_place_what_is_quoted, "text", "read\n"),
        (let_an_error_of_polars_through, "arrow", "came through"),
        (let_an_error_of_polars_through, "parquet", "came through"),
        pytest.param(
            take_damage_for_the_end,
            "books",
            "what cannot be read was read",
            marks=pytest.mark.full,
        ),
        (guess_at_what_cannot_be_decoded, "text", "what cannot be read was read"),
        (say_another_line, "text", "the line must be one of"),
        (say_no_line, "json", "the line must be one of"),
        (keep_the_last_of_two_keys, "json", "what cannot be read was read"),
        (keep_the_latest_time, "reviews", "read\n"),
        (leave_out_who_is_at_the_threshold, "text", "read\n"),
        (believe_a_manifest, "folder", "read\n"),
        (let_an_error_of_json_through, "folder", "came through"),
        pytest.param(say_no_remedy, "books", "there is no remedy", marks=pytest.mark.full),
    ],
)
def test_a_fault_is_found(fault, target, said, tmp_path, monkeypatch, capfd):
    fault(monkeypatch)
    for seed in range(600):
        try:
            examine(case(target, seed), tmp_path)
        except FindingError as finding:
            assert f"case({target!r}, {seed})" in str(finding)  # noqa: PT017
            if said in str(finding).split("\n", 1)[0] + "\n":
                capfd.readouterr()
                return
    raise AssertionError(f"{fault.__name__} was not found in 600 cases")

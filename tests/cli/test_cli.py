"""The command line: what it says, what it prints, and how it ends."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
import typer

import nearfar as nf
from conftest import TORCH_DEVICES, random_data
from nearfar import presets
from nearfar.cli import app, binding, inputs
from nearfar.cli import fitting as training
from nearfar.cli.flags import attribute_docs, flags_of, kebab
from nearfar.cli.inputs import ids_as_flags
from nearfar.method.options import STRATEGIES, Options
from nearfar.method.sampling import Popularity, Shared, TwoStage
from nearfar.prepare import Rules
from nearfar.runtime import devices
from nearfar.training.schedule import Schedule

SMALL = ["--dim", "8", "--batch", "32", "--learning-rate", "0.02", "--no-progress"]


def two_tastes(n=24):
    """Even users like even items, odd users odd ones; nobody has the item of their own number."""
    return [(u, i) for u in range(n) for i in range(n) if (u + i) % 2 == 0 and u != i]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data"
    nf.Interactions.from_pairs(two_tastes()).save(path)
    return path


@pytest.fixture(scope="module")
def model(data):
    """Fitted on three quarters of `data`."""
    path = data.parent / "model"
    words = ["fit", str(data), "-o", str(path), "--holdout", "0.25", "--epochs", "40", *SMALL]
    with pytest.raises(SystemExit) as ended:
        app(words)
    assert not ended.value.code
    return path


def same_points(one, other):
    """Equal to rounding: that they are equal to the bit is for the tests of the engine."""
    pairs = ((one.user_vectors, other.user_vectors), (one.item_vectors, other.item_vectors))
    return all(np.allclose(a, b, rtol=0, atol=1e-5) for a, b in pairs)


# ------------------------------------------------------------------------------------- flags

ALL_FLAGS = [
    (options, flag)
    for options, flags in (
        (Options, inputs.OPTION_FLAGS),
        (Schedule, inputs.SCHEDULE_FLAGS),
        (Rules, inputs.RULE_FLAGS),
        (inputs.Circumstances, inputs.RUN_FLAGS),
    )
    for flag in flags
]


def other_value(flag, default):
    if flag.kind is bool:
        return not default
    if isinstance(flag.kind, type) and issubclass(flag.kind, Enum):
        return next(m.value for m in flag.kind if m.value not in (default, flag.default))
    return {int: 7, float: 0.95, str: "recall", Path: Path("x")}[flag.kind]


@pytest.mark.parametrize(
    ("options", "flag"), ALL_FLAGS, ids=[f"{o.__name__}-{f.name}" for o, f in ALL_FLAGS]
)
def test_every_flag_changes_its_field(options, flag):
    parts = STRATEGIES if options is Options else {}
    flags = [f for o, f in ALL_FLAGS if o is options]
    for owner in flag.owners or (None,):
        given = {"min_value": 1.0} if flag.field in {"strictly", "repeats"} else {}
        if flag.part == "spread_out":  # shared negatives have none
            given["sampler"] = "uniform"
        if owner is not None and flag.name != kebab(flag.part):
            switch = next((f for f in flags if f.name == kebab(flag.part)), None)
            if switch is not None:
                first = 3 if switch.kind is int else 0.5
                given[switch.key] = first if switch.field else kebab(owner.__name__)
        before = binding.build(options(), flags, given, parts)
        holder = getattr(before, flag.part) if flag.part and flag.field else before
        default = getattr(holder, flag.field or flag.part, None)
        value = other_value(flag, default)
        after = binding.build(options(), flags, {**given, flag.key: value}, parts)
        changed = getattr(after, flag.part) if flag.part and flag.field else after
        found = getattr(changed, flag.field or flag.part)
        assert found == value or kebab(type(found).__name__) == value
        assert after != before


def test_every_field_has_a_flag():
    for options in (Schedule, Rules, inputs.Circumstances):
        found = {flag.field for o, flag in ALL_FLAGS if o is options}
        assert found == {field.name for field in fields(options)}
    flags = inputs.OPTION_FLAGS
    for field in fields(Options):
        if field.name not in STRATEGIES:
            assert any(f.field == field.name and not f.part for f in flags)
    hybrids = {"items", "users"}  # they follow from files of features
    for part, kinds in {k: v for k, v in STRATEGIES.items() if k not in hybrids}.items():
        for kind in set(kinds) - {type(None)}:
            for field in fields(kind):
                assert any(
                    f.part == part and f.field == field.name and kind in f.owners for f in flags
                ), (kind, field.name)


def test_flags_come_from_the_class_alone():
    @dataclass(frozen=True)
    class New:
        fresh_idea: Literal["a", "b"] = "a"
        """What it does.

        And more."""
        often: int | None = None
        """How often, in ``words``."""

    idea, often = flags_of(New)
    assert (idea.name, idea.default, [m.value for m in idea.kind]) == (
        "fresh-idea",
        "a",
        ["a", "b"],
    )
    assert (idea.help, often.help) == ("What it does.", "How often, in `words`.")
    assert (often.kind, often.default) == (int, "")
    assert binding.build(New(), (idea, often), {"often": 3}) == New(often=3)


def test_a_field_that_two_parts_have_is_named_after_its_part():
    @dataclass(frozen=True)
    class Left:
        size: int = 1

    @dataclass(frozen=True)
    class Right:
        size: int = 2

    @dataclass(frozen=True)
    class Both:
        left: Left = Left()
        right: Right = Right()

    parts = {"left": (Left,), "right": (Right,)}
    flags = flags_of(Both, parts)
    assert [flag.name for flag in flags] == ["left-size", "right-size"]
    assert binding.build(Both(), flags, {"right_size": 5}, parts) == Both(right=Right(5))


def test_the_default_that_is_shown_is_that_of_the_part_a_command_starts_from():
    @dataclass(frozen=True)
    class One:
        size: float = 1.0

    @dataclass(frozen=True)
    class Other:
        size: float = 2.0

    @dataclass(frozen=True)
    class Whole:
        part: One | Other = One(9.0)

    _, size = flags_of(Whole, {"part": (One, Other)})
    assert size.default == "9.0 for one, 2.0 for other"
    margin = next(flag for _, flag in ALL_FLAGS if flag.name == "margin")
    assert margin.default == str(Options().triplet.margin)


@pytest.mark.parametrize("part", ["spread_out", "averaging", "prior", "neighbours"])
def test_the_default_of_a_part_that_can_be_off_is_that_of_the_options(part):
    shown = {flag.default for _, flag in ALL_FLAGS if flag.name == kebab(part)}
    default = getattr(Options(), part)
    assert shown == {"off" if default is None else str(next(iter(vars(default).values())))}


def test_every_flag_has_a_help_text():
    assert [flag.name for _, flag in ALL_FLAGS if not flag.help] == []
    assert attribute_docs(TwoStage)["beta"] == "Exponent of the popularity in stage 1."


def test_no_two_flags_of_a_command_share_a_name():
    for name, command in typer.main.get_command(app).commands.items():
        words = [w for p in command.params for w in (*p.opts, *p.secondary_opts)]
        assert len(words) == len(set(words)), name


class Caught(nf.errors.NearfarError):
    """Carries the options out of a command."""


@pytest.fixture
def options_of(monkeypatch, data, run):
    """What `nearfar fit` makes of flags, without training."""

    def call(*words):
        seen = []

        def catch(options):
            seen.append(options)
            raise Caught("seen")

        monkeypatch.setattr(training, "CML", catch)
        code, _, err = run("fit", data, "-o", "nowhere", *words)
        assert (code, err) == (1, "nearfar: seen\n")
        return seen[0]

    return call


def test_flags_of_strategies_reach_the_options(options_of):
    assert options_of() == Options()
    assert options_of("--sampler", "two-stage", "--candidates", "9", "--no-distinct") == Options(
        sampler=TwoStage(9, distinct=False)
    )
    user = ["--sampler", "two-stage", "--towards", "user", "--sharpness", "0.2"]
    assert options_of(*user).sampler == TwoStage(towards="user", sharpness=0.2)
    assert options_of("--sampler", "popularity", "--beta", "-0.5") == Options(
        sampler=Popularity(-0.5)
    )
    assert options_of("--optimiser", "sgd", "--learning-rate", "0.5") == Options(
        optimiser=nf.SGD(0.5)
    )
    assert options_of("--sampler", "uniform", "--spread-out", "0.5") == Options(
        sampler=nf.Uniform(), spread_out=nf.SpreadOut(0.5)
    )
    assert options_of("--decorrelate", "0.2", "--decorrelate-squared") == Options(
        decorrelate=nf.Decorrelate(0.2, squared=True)
    )
    triplet = Options().triplet
    assert options_of("--margin", "0.5", "--rank-weight") == Options(
        triplet=nf.Triplet(0.5, True, triplet.temperature)
    )
    assert options_of("--averaging", "0") == Options(averaging=None)
    shared = ("--sampler", "shared", "--beta", "0.3", "--negatives", "32", "--temperature", "0.3")
    assert options_of(*shared) == Options(
        sampler=Shared(0.3), negatives=32, triplet=replace(triplet, temperature=0.3)
    )


def test_flags_go_over_a_preset(options_of):
    preset = ("--preset", "paper_2019")
    assert options_of(*preset) == presets.paper_2019()
    assert options_of(*preset, "--dim", "16").dim == 16
    assert options_of(*preset, "--spread-out", "0").spread_out is None
    assert options_of(*preset, "--candidates", "10").sampler == TwoStage(10)
    assert options_of(*preset, "--sampler", "uniform", "--negatives", "1") == presets.paper_2019(
        "uniform", negatives=1
    )
    assert options_of("--preset", "cml_2017", "--margin", "1.5") == presets.cml_2017(margin=1.5)


def test_what_presets_take_are_names_of_flags(options_of):
    keys = {flag.key for flag in inputs.OPTION_FLAGS}
    for name, preset in presets.PRESETS.items():
        taken = set(inspect.signature(preset).parameters)
        assert taken <= keys or name == "long_tail"
    assert options_of("--preset", "long_tail", "--prior", "0.25") == presets.long_tail(0.25)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--candidates", "9"],
            "`--candidates` belongs to --sampler two-stage; the sampler is shared.",
        ),
        (
            ["--sampler", "two-stage", "--redraws", "9"],
            "`--redraws` belongs to --sampler uniform or popularity; the sampler is two-stage.",
        ),
        (
            ["--preset", "paper_2019", "--sampler", "uniform", "--beta", "1"],
            "`--beta` belongs to --sampler popularity or two-stage or shared; the sampler is"
            " uniform.",
        ),
        (
            ["--decorrelate-squared"],
            "`--decorrelate-squared` belongs to --decorrelate, which is off; give --decorrelate"
            " too.",
        ),
    ],
)
def test_a_flag_of_another_strategy_is_refused(run, data, tmp_path, words, message):
    code, out, err = run("fit", data, "-o", tmp_path / "m", *words)
    assert (code, out, err) == (2, "", f"nearfar: {message}\n")
    assert not (tmp_path / "m").exists()


def test_a_value_out_of_range_is_one_line(run, data, tmp_path):
    code, out, err = run("fit", data, "-o", tmp_path / "m", "--dim", "1")
    assert (code, out) == (1, "")
    assert err == "nearfar: `dim` must be a whole number from 2 to 4,096; got 1.\n"


@pytest.mark.parametrize("words", [["fit"], ["bogus"], ["fit", "x", "-o", "y", "--sampler", "z"]])
def test_what_cannot_be_parsed_ends_with_2(run, words):
    code, _, _ = run(*words)
    assert code == 2


# ------------------------------------------------------------------------- a model, end to end


def test_fit_holds_out_what_ratio_says(model, data):
    everything = nf.Interactions.load(data)
    train, _ = nf.split.ratio(everything, test=0.25, seed=0)
    assert nf.CML.load(model).interactions == train


def test_fit_gives_its_figures_and_the_library_s_model(as_json, ok, data, tmp_path):
    words = ["--epochs", "6", "--validation", "0.3", "--every", "2", "--k", "5", "--seed", "3"]
    found = as_json("fit", data, "-o", tmp_path / "m", *SMALL, *words, "--threads", "1")
    options = Options(dim=8, batch=32, optimiser=nf.Adam(0.02))
    expected = nf.CML(options).fit(
        nf.Interactions.load(data), epochs=6, validation=0.3, every=2, k=5, seed=3, progress=False
    )
    loaded = nf.CML.load(tmp_path / "m")
    assert same_points(loaded, expected)
    assert found["best_epoch"] == expected.best_epoch
    assert found["epochs"] == 6
    assert found["n_held_out"] == 0
    validated = expected.history["validation_ndcg"][1]
    assert found["history"][1]["validation_ndcg"] == pytest.approx(validated, abs=1e-3)
    assert found["history"][0]["validation_ndcg"] is None
    assert Options.from_dict(found["options"]) == options
    assert (found["gamma"], found["neighbour_weight"]) == (loaded.gamma, 0)
    words = [*SMALL, "--epochs", "1", "--prior-gamma", "0.07", "--neighbours", "3"]
    shown = ok("fit", data, "-o", tmp_path / "n", *words, "--threads", "1")
    assert re.search(r"gamma of the prior\W+0\.07\W+weight of neighbours\W+8\b", shown)


def test_fit_with_shared_negatives_and_a_temperature(as_json, ok, run, data, tmp_path):
    words = ["--sampler", "shared", "--negatives", "32", "--temperature", "0.3", *SMALL]
    found = as_json("fit", data, "-o", tmp_path / "m", "--epochs", "20", *words)
    options = Options(
        dim=8, batch=32, optimiser=nf.Adam(0.02), sampler=Shared(), negatives=32,
        triplet=replace(Options().triplet, temperature=0.3),
    )  # fmt: skip
    assert Options.from_dict(found["options"]) == options == nf.CML.load(tmp_path / "m").options
    losses = [row["loss"] for row in found["history"]]
    assert losses[-1] < losses[0] / 2
    assert {row["missed"] for row in found["history"]} == {0}
    assert "Recommended to 3" in ok("recommend", tmp_path / "m", "--user", "3")
    code, out, err = run("fit", data, "-o", tmp_path / "n", *words, "--spread-out", "0.1")
    assert (code, out) == (1, "")
    assert err.startswith("nearfar: `spread_out` ")
    assert err.endswith("Use spread_out=None.\n")


def test_evaluate_gives_the_library_s_figures(as_json, ok, model, data, tmp_path):
    figures = tmp_path / "users.parquet"
    found = as_json("evaluate", model, data, "--k", "6", "--baselines", "--per-user", figures)
    train, test = nf.split.ratio(nf.Interactions.load(data), test=0.25, seed=0)
    expected = nf.evaluate(nf.CML.load(model), train, test, k=6)
    assert found["metrics"] == expected.metrics
    assert found["n_test_pairs"] == len(test)
    assert found["n_unknown_pairs"] == 0
    popular = nf.evaluate(nf.baselines.MostPopular(train), train, test, k=6)
    assert found["baselines"]["popularity"]["metrics"] == popular.metrics
    assert expected["ndcg"] > 2 * popular["ndcg"]
    assert pl.read_parquet(figures).equals(expected.per_user)
    shown = ok("evaluate", model, data, "--k", "6")
    assert f"{expected['ndcg']:.4f}" in shown
    assert "popularity" not in shown.replace("mean_popularity", "")


def test_evaluate_leaves_out_and_counts_what_the_model_does_not_know(as_json, ok, model, tmp_path):
    new = [(0, 99), (77, 0), (77, 99)]
    nf.Interactions.from_pairs([*two_tastes(), *new]).save(tmp_path / "more")
    assert as_json("evaluate", model, tmp_path / "more")["n_unknown_pairs"] == 3
    assert "3 interactions of users or items unknown" in ok("evaluate", model, tmp_path / "more")


@pytest.fixture
def with_new_users(data, tmp_path):
    """The data, 12 more users with the tastes of the others, and one more with a single item."""
    new = [(100 + u, i) for u in range(12) for i in range(24) if (u + i) % 2 == 0 and i != u]
    nf.Interactions.from_pairs([*two_tastes(), *new, (200, 3)]).save(tmp_path / "new")
    return tmp_path / "new"


@pytest.mark.parametrize("spelling", ["fold-in", "fold_in"])
def test_evaluate_folds_new_users_in(as_json, ok, model, with_new_users, spelling):
    words = ["evaluate", model, with_new_users, "--k", "6", "--new-users", spelling]
    found = as_json(*words, "--baselines", "--given", "0.5", "--seed", "3")
    fitted, everything = nf.CML.load(model), nf.Interactions.load(with_new_users)
    train = fitted.interactions.aligned(everything.user_ids, everything.item_ids)
    test = everything.without(train)
    new = (train.user_counts == 0)[test.pair_users()]
    given, _ = nf.split.for_fold_in(test.subset(new), 0.5, seed=3)
    wide = fitted.with_users(everything.user_ids)
    every = {"k": 6, "new_users": "fold_in", "given": given}
    expected = nf.evaluate(wide, train, test.without(given), **every)
    assert found["metrics"] == expected.metrics
    assert (found["n_new_users"], found["n_folded_in"]) == (12, 12)  # that with one item has none
    popular = nf.evaluate(nf.baselines.MostPopular(train), train, test.without(given), **every)
    assert found["baselines"]["popularity"]["metrics"] == popular.metrics
    assert expected["ndcg"] > 1.5 * popular["ndcg"]
    assert "Users: 12 folded in without training interactions." in ok(*words)


def test_evaluate_counts_or_refuses_new_users(as_json, run, model, with_new_users):
    found = as_json("evaluate", model, with_new_users, "--k", "6")
    assert (found["n_new_users"], found["n_unknown_pairs"]) == (0, 12 * 11 + 1)
    code, out, err = run("evaluate", model, with_new_users, "--new-users", "error")
    assert (code, out) == (1, "")
    assert "13 of the 37 users with test items have no training interactions" in err
    code, _, err = run("evaluate", model, with_new_users, "--new-users", "some")
    assert code == 1
    assert "`--new-users` must be one of leave-out, fold-in, error; got 'some'" in err
    code, _, err = run("evaluate", model, with_new_users, "--given", "0.5")
    assert (code, err) == (2, "nearfar: `--given` is only used with --new-users fold-in.\n")
    code, _, err = run("evaluate", model, with_new_users, "--new-users", "fold-in", "--given", "2")
    assert code == 1
    assert "`given`" in err


def test_evaluate_keeps_the_metrics_and_not_the_new_users(ok, data, with_new_users, tmp_path):
    ok("fit", data, "-o", tmp_path / "m", "--holdout", "0.25", "--epochs", "1", *SMALL)
    before = nf.CML.load(tmp_path / "m").interactions
    ok("evaluate", tmp_path / "m", with_new_users, "--new-users", "fold-in", "--keep")
    kept = nf.CML.load(tmp_path / "m")
    assert kept.interactions == before
    assert kept.metrics["test"]["n_folded_in"] == 12


def test_evaluate_without_anything_left_says_what_to_do(run, ok, data, tmp_path):
    ok("fit", data, "-o", tmp_path / "m", *SMALL, "--epochs", "1")
    code, out, err = run("evaluate", tmp_path / "m", data)
    assert (code, out) == (1, "")
    assert "Fit with `--holdout 0.25`" in err


def test_evaluate_checks_the_file_of_figures_first(run, model):
    code, _, err = run("evaluate", model, "nowhere", "--per-user", "figures.xlsx")
    assert code == 2
    assert "must end in .parquet or .csv; got 'figures.xlsx'" in err


def test_recommend_gives_the_library_s_lists(as_json, model):
    found = as_json("recommend", model, *(w for u in range(24) for w in ("--user", u)), "--k", "2")
    fitted = nf.CML.load(model)
    rows = [
        (entry["user_id"], rank, one["item_id"], one["score"])
        for entry in found["recommendations"]
        for rank, one in enumerate(entry["nearest"], start=1)
    ]
    assert rows == fitted.recommend(list(range(24)), 2).rows()
    assert not any(fitted.interactions.contains(user, item) for user, _, item, _ in rows)
    assert sum(user % 2 == item % 2 for user, _, item, _ in rows) > 0.75 * len(rows)


def test_recommend_allows_denies_and_shows_what_was_seen(as_json, model, tmp_path):
    def items(*words):
        found = as_json("recommend", model, "--user", "3", "--k", "24", *words)
        return {one["item_id"] for one in found["recommendations"][0]["nearest"]}

    data = nf.CML.load(model).interactions
    unseen = set(range(24)) - set(data.positives(3).tolist())
    assert items() == unseen
    assert items("--include-seen") == set(range(24))
    some = sorted(unseen)[:3]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, some)) + "\n\n")
    assert items("--deny", f"@{tmp_path}/ids.txt") == unseen - set(some)
    assert items("--allow", f"@{tmp_path}/ids.txt", "--deny", some[0]) == set(some[1:])
    assert items("--allow", some[0], "--allow", some[2]) == {some[0], some[2]}


def test_ids_of_filters_that_the_model_does_not_know_are_ignored_and_counted(run, model, tmp_path):
    (tmp_path / "ids.txt").write_text("tea\n999\n5\n7\n")
    words = ["recommend", model, "--user", "3", "--deny", f"@{tmp_path}/ids.txt", "--allow", "5"]
    code, out, err = run(*words, "--allow", "9", "--allow", "888", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["unknown"] == {"allow": 1, "deny": 2}
    assert {one["item_id"] for one in found["recommendations"][0]["nearest"]} <= {9}
    assert "1 of the 3 ids in --allow are unknown to the model and are ignored: 888." in err
    assert "2 of the 4 ids in --deny are unknown to the model and are ignored: 'tea', 999." in err
    assert "unknown" not in json.loads(run("recommend", model, "--user", "3", "--json")[1])
    code, out, err = run("recommend", model, "--user", "3", "--deny", tmp_path / "ids.txt")
    assert (code, out) == (1, "")
    assert f"but a file; for the ids in it write --deny @{tmp_path / 'ids.txt'}." in err


def test_users_that_the_model_does_not_know_are_skipped_if_wanted(run, as_json, model, tmp_path):
    words = ["recommend", model, "--user", "99", "--user", "3", "--user", "x", "--k", "2"]
    code, _, err = run(*words)
    assert code == 1
    assert "Unknown user ids (2 of them): 99, 'x'" in err
    assert err.rstrip().endswith("`--unknown skip` leaves such users out.")
    code, out, err = run(*words, "--unknown", "skip", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["unknown"] == {"users": 2}
    expected = as_json("recommend", model, "--user", "3", "--k", "2")
    assert found["recommendations"] == expected["recommendations"]
    assert "2 of the 3 ids in --user are unknown to the model" in err
    code, out, err = run("recommend", model, "--user", "99", "--unknown", "skip")
    assert (code, out) == (1, "")
    assert "no user is left" in err


def test_remedies_are_flags(run, model, tmp_path):
    code, _, err = run("recommend", model, "--liked", "99")
    assert code == 1
    assert err.rstrip().endswith("`--unknown skip` leaves such items out.")
    code, _, err = run("fit", tmp_path / "none", "-o", tmp_path / "m")
    assert code == 1
    assert "a folder that `nearfar prepare` wrote, or a file of users and items." in err


def test_the_error_about_a_user_without_interactions_is_in_flags():
    told = "Pass `liked`, or train (`partial_fit`); unknown='skip' leaves such users out."
    assert str(ids_as_flags(nf.errors.UnknownIdError(told))) == (
        "Pass `--liked`, or train (`nearfar update`); `--unknown skip` leaves such users out."
    )


def test_batch_skips_and_counts_users(run, as_json, ok, model, tmp_path):
    (tmp_path / "users.txt").write_text("3\n99\n5\nx\n")
    words = ["batch", model, "--users", tmp_path / "users.txt", "--k", "2", "--deny", "777"]
    code, _, err = run(*words, "-o", tmp_path / "lists")
    assert code == 1
    assert "Unknown user ids (2 of them): 99, 'x'" in err
    assert err.rstrip().endswith("`--unknown skip` leaves such users out.")
    assert not (tmp_path / "lists").exists()
    found = as_json(*words, "-o", tmp_path / "lists", "--unknown", "skip")
    assert (found["n_users"], found["n_skipped"], found["unknown"]) == (2, 2, {"deny": 1})
    read = pl.read_parquet(tmp_path / "lists" / "part-*.parquet")
    assert read.equals(nf.CML.load(model).recommend([3, 5], 2))
    shown = ok(*words, "-o", tmp_path / "lists", "--unknown", "skip")
    assert "2 users skipped: unknown to the model" in shown


def test_recommend_shows_tables(ok, model):
    shown = ok("recommend", model, "--user", "3", "--k", "2")
    assert "Recommended to 3" in shown
    assert "item_id" in shown
    nothing = ok("recommend", model, "--user", "3", "--allow", "3", "--deny", "3")
    assert nothing == "Recommended to 3: no items are left.\n"


def test_explain_shows_the_parts_of_a_score_and_the_items_near(as_json, ok, run, model):
    fitted = nf.CML.load(model)
    for words, why in (
        (["--user", 4], fitted.explain(4, 6)),
        (["--liked", 2, "--liked", 8, "--k", 1], fitted.explain(item=6, liked=[2, 8], k=1)),
        (["--user", 4, "--k", 2], fitted.explain(4, 6, k=2)),
    ):
        found = as_json("explain", model, "--item", 6, *words)
        assert found["score"] == why.score
        assert found["closeness"] + found["prior"] + found["neighbours"] == pytest.approx(why.score)
        assert found["nearest"] == why.nearest.to_dicts()
        assert ok("explain", model, "--item", 6, *words).strip() == str(why)
    for words, told in (
        (["--item", 6], "`--user`"),
        (["--item", 6, "--user", 4, "--liked", 2], "`--user`"),
        (["--item", 999, "--user", 4], "999"),
        (["--item", 6, "--user", "x"], "'x'"),
        (["--user", 4], "--item"),
    ):
        code, _, err = run("explain", model, *words)
        assert code != 0
        assert told in err
        assert "--unknown" not in err


def test_similar_asks_for_items_or_for_users(as_json, run, model):
    fitted = nf.CML.load(model)
    for what, find in (("item", fitted.similar_items), ("user", fitted.similar_users)):
        (entry,) = as_json("similar", model, f"--{what}", "5", "--k", "3")["neighbours"]
        found = [(one[f"{what}_id"], one["score"]) for one in entry["nearest"]]
        assert entry[f"{what}_id"] == 5
        assert found == find(5, 3).select(f"{what}_id", "score").rows()
        assert all(one % 2 == 1 and one != 5 for one, _ in found)
    found = as_json("similar", model, "--item", 5, "--deny", 7, "--deny", 99, "--allow", 9,
                    "--allow", 7, "--allow", 11)  # fmt: skip
    only = fitted.similar_items(5, allow=[7, 9, 11], deny=[7])
    assert [one["item_id"] for one in found["neighbours"][0]["nearest"]] == only[
        "item_id"
    ].to_list()
    assert sorted(only["item_id"]) == [9, 11]
    assert found["unknown"] == {"deny": 1}
    for words in ([], ["--item", "5", "--user", "5"], ["--user", 5, "--deny", 7]):
        code, _, err = run("similar", model, *words)
        assert code == 2
        assert "`--item`" in err


@pytest.mark.parametrize("word", ["99", "ann"])
def test_an_unknown_id_is_one_line(run, model, word):
    code, out, err = run("recommend", model, "--user", word)
    assert (code, out) == (1, "")
    assert err.startswith("nearfar: Unknown user id")
    assert err.count("\n") == 1


def test_crossvalidate_is_k_fold_and_evaluate(run, data):
    words = [*SMALL, "--epochs", "3", "--k", "5", "--seed", "2"]
    code, out, err = run("crossvalidate", data, "--folds", "3", *words, "--json")
    assert code == 0
    assert err.count("fold ") == 3
    found = json.loads(out)
    values = []
    for train, test in nf.split.k_fold(nf.Interactions.load(data), 3, seed=2):
        model = nf.CML(dim=8, batch=32, optimiser=nf.Adam(0.02))
        model.fit(train, epochs=3, seed=2, progress=False)
        values.append(nf.evaluate(model, train, test, k=5)["ndcg"])
    assert [fold["metrics"]["ndcg"] for fold in found["folds"]] == pytest.approx(values, abs=1e-3)
    assert found["metrics"]["ndcg"]["mean"] == pytest.approx(pl.Series(values).mean(), abs=1e-3)
    assert found["metrics"]["ndcg"]["std"] == pytest.approx(pl.Series(values).std(), abs=1e-3)


def test_crossvalidate_prints_a_line_a_fold_and_a_table(ok, data, tmp_path):
    words = [*SMALL, "--epochs", "1", "--checkpoint", tmp_path / "runs"]
    shown = ok("crossvalidate", data, "--folds", "2", *words)
    assert shown.startswith("fold 1 of 2: map ")
    assert "fold 2 of 2" in shown
    assert "std" in shown
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fold-1", "fold-2"]


def test_crossvalidate_counts_users_with_one_item(run, tmp_path):
    singles = [(100 + u, u % 24) for u in range(8)]
    nf.Interactions.from_pairs([*two_tastes(), *singles]).save(tmp_path / "d")
    words = ["crossvalidate", tmp_path / "d", "--folds", "2", *SMALL, "--epochs", "1", "--k", "5"]
    code, out, err = run(*words, "--json")
    assert code == 0
    assert sum(fold["n_new_users"] for fold in json.loads(out)["folds"]) == 8
    assert "no training interactions" in err
    assert "8 of 56 tested users, over all folds, were left out" in run(*words)[1]


# --------------------------------------------------------------------------------------- devices


def figures(found):
    """Every number in what a command gives, in order."""
    if isinstance(found, dict | list):
        parts = found.values() if isinstance(found, dict) else found
        return [number for part in parts for number in figures(part)]
    return [found] if isinstance(found, int | float) else []


@pytest.mark.parametrize("device", TORCH_DEVICES)
@pytest.mark.parametrize(
    "words",
    [["evaluate", "DATA", "--baselines"], ["recommend", "--user", 3], ["similar", "--item", 5]],
)
def test_a_device_gives_what_the_processor_gives(as_json, model, data, device, words):
    command, *rest = [data if word == "DATA" else word for word in words]
    found = as_json(command, model, *rest, "--k", "4", "--device", device)
    expected = as_json(command, model, *rest, "--k", "4")
    assert figures(found) == pytest.approx(figures(expected), abs=1e-5)


def commands(model, data, out):
    return (
        ["fit", data, "-o", out, *SMALL, "--epochs", "1"],
        ["crossvalidate", data, "--folds", "2", *SMALL, "--epochs", "1", "--json"],
        ["evaluate", model, data],
        ["recommend", model, "--user", "3"],
        ["similar", model, "--item", "5"],
    )


def test_where_the_device_is_left_to_the_machine_it_is_named(
    run, model, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "_best", lambda: "cpu")
    for words in commands(model, data, tmp_path / "m"):
        code, _, err = run(*words, "--device", "auto")
        assert code == 0
        assert err.startswith("nearfar: the device is cpu.\n")
        assert "device" not in run(*words)[2]


def test_an_unknown_device_is_one_line_before_anything_is_read(run, tmp_path):
    nowhere = tmp_path / "nowhere"
    for words in commands(nowhere, nowhere, tmp_path / "m"):
        code, _, err = run(*words, "--device", "tpu")
        assert code == 1
        assert err.startswith("nearfar: `device` must be one of cpu, reference, auto, cuda")
        assert err.endswith("got 'tpu'.\n")


def test_the_reference_trains_and_does_not_rank(run, model, data, tmp_path):
    trains, validates, *ranks = commands(model, data, tmp_path / "m")
    for words in (trains, validates):
        assert run(*words, "--device", "reference")[0] == 0
    for words in ranks:
        code, _, err = run(*words, "--device", "reference")
        assert code == 1
        assert "which is for training only" in err


def test_fast_is_for_a_gpu(run, data, tmp_path):
    code, _, err = run("fit", data, "-o", tmp_path / "m", *SMALL, "--fast")
    assert code == 1
    assert err.startswith("nearfar: `fast` ")


# ------------------------------------------------------------------------------------ interrupts


def interrupted_after(epoch, monkeypatch):
    fit = nf.CML.fit

    def stop(event):
        if event.epoch == epoch:
            raise KeyboardInterrupt

    def interrupted(self, *args, **kwargs):
        if epoch == 0:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs, callbacks=[stop])

    monkeypatch.setattr(nf.CML, "fit", interrupted)


def test_a_warning_is_a_line_on_stderr(run, tmp_path):
    data = tmp_path / "data"
    random_data(60, 90, 0.2).save(data)
    slow = ("--learning-rate", 1e-9, "--epochs", 10, "--validation", 0.2, "--dim", 4)
    code, _, err = run("fit", data, "-o", tmp_path / "model", *slow)
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("nearfar: warning: NDCG on the validation part reached 0.")


def test_an_interrupted_fit_saves_what_it_has(run, data, tmp_path, monkeypatch):
    interrupted_after(3, monkeypatch)
    code, out, err = run("fit", data, "-o", tmp_path / "m", *SMALL, "--epochs", "9", "--json")
    assert (code, out) == (130, "")
    assert err == (
        f"nearfar: interrupted after 3 epochs; the model of epoch 3 is saved in {tmp_path / 'm'}.\n"
    )
    monkeypatch.undo()
    expected = nf.CML(dim=8, batch=32, optimiser=nf.Adam(0.02))
    expected.fit(nf.Interactions.load(data), epochs=3, progress=False)
    assert same_points(nf.CML.load(tmp_path / "m"), expected)


def test_any_other_interrupt_ends_with_130(run, data, monkeypatch):
    interrupted_after(1, monkeypatch)
    code, out, err = run("crossvalidate", data, *SMALL)
    assert (code, out, err) == (130, "", "nearfar: interrupted.\n")


def test_a_fit_interrupted_at_once_saves_nothing(run, data, tmp_path, monkeypatch):
    interrupted_after(0, monkeypatch)
    code, _, err = run("fit", data, "-o", tmp_path / "m", *SMALL)
    assert code == 130
    assert "no model is saved" in err
    assert not (tmp_path / "m").exists()


# ----------------------------------------------------------------------------------- raw tables


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "ratings.csv"
    rows = [f"{u},{i},{1 + (u * i) % 5},{u + i}" for u in range(8) for i in range(8)]
    path.write_text("\n".join(["who,what,stars,at", *rows]) + "\n")
    return path


COLUMNS = ["--user", "who", "--item", "what", "--value", "stars", "--time", "at"]


def test_prepare_follows_the_rules(as_json, ratings, tmp_path):
    rules = ["--min-value", "3", "--strictly", "--min-user-items", "2", "--core", "fixed-point"]
    found = as_json("prepare", ratings, "-o", tmp_path / "d", *COLUMNS, *rules)
    table = pl.read_csv(ratings, infer_schema=False).rename(
        {"who": "user", "what": "item", "stars": "value", "at": "time"}
    )
    expected, report = nf.prepare(
        table, Rules(3.0, strictly=True, min_user_items=2, core="fixed-point")
    )
    assert nf.Interactions.load(tmp_path / "d") == expected
    assert found["n_pairs"] == report.n_pairs
    assert found["steps"][0] == {"name": "read", "n_pairs": 64, "n_users": None, "n_items": None}


def test_prepare_reads_files_without_a_header(ok, tmp_path):
    raw = tmp_path / "pairs.txt"
    raw.write_text("a;x;5\nb;y;1\n")
    words = ["--separator", ";", "--no-header", "--value", "2", "--min-value", "2"]
    ok("prepare", raw, "-o", tmp_path / "d", *words)
    assert nf.Interactions.load(tmp_path / "d").to_frame().rows() == [("a", "x")]
    ok("prepare", raw, "-o", tmp_path / "d", *words[:3], "--user", "1", "--item", "0")
    assert nf.Interactions.load(tmp_path / "d").to_frame().rows() == [("x", "a"), ("y", "b")]


def test_prepare_says_which_flag_is_missing(run, ratings, tmp_path):
    code, out, err = run("prepare", ratings, "-o", tmp_path / "d")
    assert (code, out) == (1, "")
    assert "`--user`" in err
    assert "who, what, stars, at" in err


def test_prepare_refuses_columns_of_a_known_data_set(run, ratings, tmp_path):
    words = ["--recipe", "movielens", "--user", "who"]
    code, _, err = run("prepare", ratings, "-o", tmp_path / "d", *words)
    assert code == 2
    assert "`--user` belongs to --recipe table; the recipe is movielens." in err


def test_fit_reads_a_plain_table(ok, tmp_path):
    table = tmp_path / "likes.csv"
    table.write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in two_tastes(10)))
    ok("fit", table, "-o", tmp_path / "m", *SMALL, "--epochs", "1")
    assert nf.CML.load(tmp_path / "m").interactions.user_ids.id(0) == "0"


def test_fit_sends_other_tables_to_prepare(run, ratings, tmp_path):
    code, _, err = run("fit", ratings, "-o", tmp_path / "m")
    assert code == 1
    assert "nearfar prepare" in err


def test_a_folder_that_is_not_there_is_one_line(run, tmp_path):
    code, _, err = run("fit", tmp_path / "none", "-o", tmp_path / "m")
    assert code == 1
    assert err.count("\n") == 1


# -------------------------------------------------------------------------------------- the rest


def test_python_m_nearfar_is_the_command_line():
    def call(*words):
        command = [sys.executable, "-m", "nearfar", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert call("--version").stdout == f"nearfar {nf.__version__}\n"


@pytest.mark.parametrize(
    "command", ["demo", "prepare", "fit", "evaluate", "crossvalidate", "recommend", "similar"]
)
def test_every_command_has_help_with_an_example(ok, command):
    shown = ok(command, "--help")
    assert f"Example: nearfar {command}" in shown
    assert command in ok("--help")

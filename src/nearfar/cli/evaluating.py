"""``nearfar evaluate`` and ``front``: tests of a saved model on what it was not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError
from nearfar.cli.fitting import Data, Json
from nearfar.cli.flags import kebab
from nearfar.cli.inputs import load_data, ranking_device
from nearfar.cli.using import Device, Dial, Length, Model, Threads
from nearfar.data import split
from nearfar.data.interactions import Interactions
from nearfar.errors import EmptyDataError, NearfarWarning
from nearfar.evaluation import metrics
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.evaluation.cohorts import NEW_USERS
from nearfar.evaluation.front import front as measure_front
from nearfar.evaluation.front_plot import FORMATS
from nearfar.evaluation.ranking import CANDIDATES
from nearfar.evaluation.ranking import evaluate as measure
from nearfar.evaluation.result import Evaluation
from nearfar.model.cml import CML
from nearfar.runtime.checks import one_of
from nearfar.runtime.progress import shows

_WRITERS = {".parquet": "write_parquet", ".csv": "write_csv"}
_GIVEN = 0.8
"""The share of a new user's items that is given to the model, if no other is named."""

NewUsers = Annotated[
    str,
    typer.Option(
        metavar="leave-out|fold-in|error",
        help="What to do with users of DATA that the model was not trained on: leave them out,"
        " fold them in from a part of their items, or refuse.",
    ),
]
Given = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="With --new-users fold-in: the share of each new user's items that is given to the"
        f" model; the rest is to be found. [default: {_GIVEN}]",
        show_default=False,
    ),
]
Candidates = Annotated[
    str | None,
    typer.Option(
        metavar="all|warm|cold",
        help="Rank all items, those with training interactions, or those without."
        " [default: all; for a model with features that is to find items without, all three]",
        show_default=False,
    ),
]


def evaluate(
    model: Model,
    data: Data,
    *,
    k: Length = 50,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Evaluate also popularity and random.")
    ] = False,
    new_users: NewUsers = "leave-out",
    given: Given = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of the given items.")] = 0,
    popularity: Dial = None,
    candidates: Candidates = None,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
    per_user: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the metrics of each user to a .parquet or .csv."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Save the metrics in the model and its card.")
    ] = False,
) -> None:
    """Test a model on the interactions of DATA that it was not trained on."""
    _check_file(per_user, "--per-user", _WRITERS)
    treatment = _treatment(new_users, given)
    device = ranking_device(device)
    trial = _trial(CML.load(model), data, treatment, _GIVEN if given is None else given, seed)
    found = _measured(
        trial, _kinds_of_candidates(candidates, trial.model, trial.test), baselines,
        k=k, threads=threads, popularity=popularity, device=device,
    )  # fmt: skip
    if per_user is not None:
        getattr(found["CML"].per_user, _WRITERS[per_user.suffix])(per_user)
    if keep:
        kept = CML.load(model)  # that of the trial may have more users
        kept.keep_evaluation(found["CML"])
        kept.save(model)
    (_emit if json else _show)(found, trial.test.n_pairs, trial.unknown)


class _Trial(NamedTuple):
    """A model and what it is tested on, on the axes of the model."""

    model: CML
    test: Interactions
    new_users: str
    given: Interactions | None
    """The items of new users that the model is given, with "fold_in"."""
    unknown: int
    """The number of interactions of users or items that the model does not know."""


def _treatment(new_users: str, given: float | None) -> str:
    """Return what `evaluate` is to do with new users."""
    words = [kebab(name) for name in NEW_USERS]
    found: str = one_of("--new-users", new_users.replace("_", "-"), words).replace("-", "_")
    if given is not None and found != "fold_in":
        raise FlagError("`--given` is only used with --new-users fold-in.")
    return found


def _trial(model: CML, data: Path, new_users: str, share: float, seed: int) -> _Trial:
    """Return what is to be found; new users are given a share of their items if folded in."""
    table = load_data(data, like=model.interactions)
    if new_users != "leave_out":  # then they are on the axis of users, where `evaluate` finds them
        model = model.with_users(model.interactions.user_ids.union(table.user_ids))
    test, unknown = _rest(table, model.interactions)
    given = None
    if new_users == "fold_in":
        given, test = _given(test, model.interactions, share, seed)
    return _Trial(model, test, new_users, given, unknown)


def _measured(
    trial: _Trial, kinds: tuple[str, ...], baselines: bool, *, k: int, threads: int | None,
    popularity: float | None, device: str,
) -> dict[str, Evaluation]:  # fmt: skip
    """Evaluate the model, and baselines beside it, on each kind of candidates."""
    train = trial.model.interactions
    recommenders: dict[str, Any] = {"CML": trial.model}
    if baselines:
        recommenders["popularity"] = MostPopular(train)
        recommenders["random"] = Random(train.n_users, train.n_items)
    own: dict[str, Any] = {"popularity": popularity, "device": device}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)  # the numbers are in the output
        return {
            name if among == kinds[0] else f"{name}, {among}": measure(
                one, train, trial.test, k=k, threads=threads, progress=shows(None),
                new_users=trial.new_users, given=trial.given, candidates=among,
                **(own if one is trial.model else {}),
            )
            for among in kinds
            for name, one in recommenders.items()
        }  # fmt: skip


def _kinds_of_candidates(asked: str | None, model: CML, test: Interactions) -> tuple[str, ...]:
    """Return the kinds of candidates to rank: all three if a hybrid is to find cold items."""
    if asked is not None:
        return (one_of("--candidates", asked, CANDIDATES),)
    warm = model.interactions.item_counts[test.items] > 0
    both = warm.any() and not warm.all()
    return CANDIDATES if both and model.features_of("items") else ("all",)


def front(
    model: Model,
    data: Data,
    *,
    popularity: Annotated[
        list[float] | None,
        typer.Option(min=0, help="A setting of the dial; repeatable. [default: 0, 0.25, ..., 2]"),
    ] = None,
    diversity: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="How much the items of a list shall differ; repeatable. Without --popularity, at"
            " the model's own setting of the dial.",
        ),
    ] = None,
    k: Length = 50,
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="A .parquet or .csv for all figures."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw NDCG against MMR: a .png, .svg or .pdf."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure accuracy and popularity of a model at several settings of its dial, or diversities.

    On the interactions of DATA that it was not trained on, as `evaluate`.
    """
    _check_file(out, "--out", _WRITERS)
    _check_file(plot, "--plot", FORMATS)
    fitted = CML.load(model)
    train = fitted.interactions
    test, _ = _rest(load_data(data, like=train), train)
    found = measure_front(fitted, train, test, popularity=popularity or None,
                          diversity=diversity or None, k=k, threads=threads,
                          progress=shows(None))  # fmt: skip
    if out is not None:
        getattr(found.frame, _WRITERS[out.suffix])(out)
    if plot is not None:
        found.plot(plot)
    if json:
        show.emit({"k": k, "n_users": found.n_users, "settings": found.frame.to_dicts()})
        return
    names = [name for name in metrics.names("short") if name in found.frame.columns]
    dials = [c for c in ("popularity", "diversity", "intra_list_distance") if c in found.frame]
    rows = [
        [*(f"{row[c]:.4g}" for c in dials), *(show.figure(name, row[name]) for name in names)]
        for row in found.frame.iter_rows(named=True)
    ]
    show.table(f"Top {k} of {found.n_users:,} users", [*dials, *names], rows)


def _check_file(file: Path | None, flag: str, suffixes: Iterable[str]) -> None:
    """Check a file that is to be written, if there is one."""
    if file is None:
        return
    if file.suffix not in suffixes:
        raise FlagError(f"`{flag}` must end in {' or '.join(suffixes)}; got {str(file)!r}.")
    if not file.parent.is_dir():
        raise FlagError(f"`{flag}` must be in an existing folder; got {str(file)!r}.")


def _rest(data: Interactions, train: Interactions) -> tuple[Interactions, int]:
    """Return the pairs not in `train`, on its axes, and the number of pairs with unknown ids."""
    known = data.aligned(train.user_ids, train.item_ids)
    unknown = data.n_pairs - known.n_pairs
    test = known.without(train)
    if known.n_pairs == 0:
        raise EmptyDataError(
            f"The model knows none of the {data.n_pairs:,} interactions: {_examples(data)}, while"
            f" those of the model are {_examples(train)}. Use data of the same users and items."
        )
    if test.n_pairs == 0:
        raise EmptyDataError(
            f"There are no interactions to test on: of {data.n_pairs:,} the model was trained on"
            f" {known.n_pairs:,}, and {unknown:,} have users or items that it does not know. Fit"
            " with `--holdout 0.25`, or use other data."
        )
    return test, unknown


def _examples(data: Interactions) -> str:
    """Name an id of each axis."""
    return f"the users are such as {data.user_ids.id(0)!r} and the items {data.item_ids.id(0)!r}"


def _given(
    test: Interactions, train: Interactions, share: float, seed: int
) -> tuple[Interactions, Interactions]:
    """Return the given items of new users, and the test part without them."""
    new = (train.user_counts == 0)[test.pair_users()]
    given = split.for_fold_in(test.subset(new), share, seed=seed)[0]
    return given, test.without(given)


def _emit(found: dict[str, Evaluation], n_pairs: int, unknown: int) -> None:
    first = found["CML"]
    figures = {"n_test_pairs": n_pairs, "n_unknown_pairs": unknown, **first.to_dict()}
    baselines: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, one in found.items():
        (baselines if one.candidates == first.candidates else others)[name] = one.to_dict()
    del baselines["CML"]
    show.emit(figures | {"baselines": baselines} | ({"by_candidates": others} if others else {}))


def _show(found: dict[str, Evaluation], n_pairs: int, unknown: int) -> None:
    one = found["CML"]
    dial = "" if one.popularity is None else f" at popularity {one.popularity:g}"
    title = f"Top {one.k} of {one.n_users:,} users{dial}, {n_pairs:,} test interactions"
    show.evaluations(title, found)
    if unknown:
        show.say(f"{unknown:,} interactions of users or items unknown to the model were left out.")
    if one.n_new_users:
        show.say(f"Users: {one.new_users_in_words()}.")

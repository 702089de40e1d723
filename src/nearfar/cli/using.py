"""``nearfar evaluate``, ``recommend`` and ``similar``: use of a saved model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError
from nearfar.cli.fitting import Data, Json
from nearfar.cli.flags import kebab
from nearfar.cli.inputs import ids_as_flags, load_data, load_index, ranking_device, typed_ids
from nearfar.data import split
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, EmptyDataError, NearfarWarning, UnknownIdError
from nearfar.evaluation import metrics
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.evaluation.cohorts import NEW_USERS
from nearfar.evaluation.front import SETTINGS
from nearfar.evaluation.front import front as measure_front
from nearfar.evaluation.front_plot import FORMATS
from nearfar.evaluation.ranking import CANDIDATES
from nearfar.evaluation.ranking import evaluate as measure
from nearfar.evaluation.result import Evaluation
from nearfar.model.asked import ignored, left_out
from nearfar.model.cml import CML
from nearfar.runtime.checks import one_of
from nearfar.runtime.progress import shows

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder written by `nearfar fit`.")]
Threads = Annotated[int | None, typer.Option(help="Threads. [default: all available cores]")]
Device = Annotated[
    str,
    typer.Option(help="Device: cpu; cuda, cuda:1 and so on; auto, a GPU if there is one."),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option("--index", metavar="INDEX", help="Search with an index by `nearfar index`."),
]
Length = Annotated[int, typer.Option("--k", min=1, help="Length of a list.")]
Dial = Annotated[
    float | None,
    typer.Option(
        "--popularity",
        min=0,
        help="The popularity dial of a model with a prior: 0 is distance alone, 1 as it was"
        " calibrated. [default: that of its prior, 1]",
    ),
]
_WRITERS = {".parquet": "write_parquet", ".csv": "write_csv"}


class WhenUnknown(StrEnum):
    """What to do with users that a model does not know."""

    error = "error"
    skip = "skip"


Unknown = Annotated[
    WhenUnknown,
    typer.Option(help="Refuse users that the model does not know, or skip and count them."),
]


def evaluate(
    model: Model,
    data: Data,
    *,
    k: Length = 50,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Evaluate also popularity and random.")
    ] = False,
    new_users: Annotated[
        str,
        typer.Option(
            metavar="leave-out|fold-in|error",
            help="What to do with users of DATA that the model was not trained on: leave them out,"
            " fold them in from a part of their items, or refuse.",
        ),
    ] = "leave-out",
    given: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="With --new-users fold-in: the share of each new user's items that is given to the"
            " model; the rest is to be found. [default: 0.8]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of the given items.")] = 0,
    popularity: Dial = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="all|warm|cold",
            help="Rank all items, those with training interactions, or those without."
            " [default: all; for a model with features that is to find items without, all three]",
            show_default=False,
        ),
    ] = None,
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
    words = [kebab(name) for name in NEW_USERS]
    what = one_of("--new-users", new_users.replace("_", "-"), words).replace("-", "_")
    if given is not None and what != "fold_in":
        raise FlagError("`--given` is only used with --new-users fold-in.")
    device = ranking_device(device)
    fitted = CML.load(model)
    table = load_data(data, like=fitted.interactions)
    if what != "leave_out":  # then they are on the axis of users, where `evaluate` finds them
        fitted = fitted.with_users(fitted.interactions.user_ids.union(table.user_ids))
    train = fitted.interactions
    test, unknown = _rest(table, train)
    part = None
    if what == "fold_in":
        part, test = _given(test, train, 0.8 if given is None else given, seed)
    which = _kinds_of_candidates(candidates, fitted, test)
    recommenders: dict[str, Any] = {"CML": fitted}
    if baselines:
        recommenders["popularity"] = MostPopular(train)
        recommenders["random"] = Random(train.n_users, train.n_items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)  # the numbers are in the output
        found = {
            name if among == which[0] else f"{name}, {among}": measure(
                one,
                train,
                test,
                k=k,
                threads=threads,
                progress=shows(None),
                new_users=what,
                given=part,
                popularity=popularity if one is fitted else None,
                candidates=among,
                device=device if one is fitted else "cpu",
            )
            for among in which
            for name, one in recommenders.items()
        }
    if per_user is not None:
        getattr(found["CML"].per_user, _WRITERS[per_user.suffix])(per_user)
    if keep:
        kept = CML.load(model)  # `fitted` may have more users
        kept.keep_evaluation(found["CML"])
        kept.save(model)
    (_emit if json else _show)(found, test.n_pairs, unknown)


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
    """Measure accuracy and popularity of a model with a prior at several settings of its dial.

    On the interactions of DATA that it was not trained on, as `evaluate`.
    """
    _check_file(out, "--out", _WRITERS)
    _check_file(plot, "--plot", FORMATS)
    fitted = CML.load(model)
    train = fitted.interactions
    test, _ = _rest(load_data(data, like=train), train)
    found = measure_front(fitted, train, test, popularity=popularity or SETTINGS, k=k,
                          threads=threads, progress=shows(None))  # fmt: skip
    if out is not None:
        getattr(found.frame, _WRITERS[out.suffix])(out)
    if plot is not None:
        found.plot(plot)
    if json:
        show.emit({"k": k, "n_users": found.n_users, "settings": found.frame.to_dicts()})
        return
    names = [name for name in metrics.names("short") if name in found.frame.columns]
    rows = [
        [f"{row['popularity']:g}", *(show.figure(name, row[name]) for name in names)]
        for row in found.frame.iter_rows(named=True)
    ]
    show.table(f"Top {k} of {found.n_users:,} users", ["popularity", *names], rows)


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


def _ids(what: str) -> Any:
    return typer.Option(
        metavar="ID|@FILE", help=f"{what} An id, or @ and a file with one per line; repeatable."
    )


def known_items(ids: Ids, words: list[str] | None, flag: str) -> tuple[list[Any] | None, int]:
    """Return the ids of a filter that the model knows, and the number of the others.

    The others are printed: they are in no list anyway.
    """
    if not words:
        return None, 0
    rows, unknown = ids.known(typed_ids(ids, words))
    for word in words:
        if word in unknown and Path(word).is_file():
            raise DataError(
                f"{flag} {word!r} is no item of the model, but a file; for the ids in it write"
                f" {flag} @{word}."
            )
    if unknown:
        show.note(f"nearfar: {ignored(flag, unknown, len(unknown) + len(rows))}")
    return ids.take(rows).to_list(), len(unknown)


def unknown_counts(**numbers: int) -> Mapping[str, Any]:
    """Return the numbers of ids that were left out, for JSON; nothing if there are none."""
    found = {name: number for name, number in numbers.items() if number}
    return {"unknown": found} if found else {}


IncludeSeen = Annotated[
    bool, typer.Option("--include-seen", help="Recommend also items that the user has already.")
]
Allow = Annotated[list[str] | None, _ids("Recommend only these items.")]
Deny = Annotated[list[str] | None, _ids("Never recommend these items.")]


def recommend(
    model: Model,
    *,
    user: Annotated[list[str] | None, _ids("Recommend to these users.")] = None,
    liked: Annotated[
        list[str] | None, _ids("Instead of --user: items that a new user likes.")
    ] = None,
    k: Length = 10,
    include_seen: IncludeSeen = False,
    allow: Allow = None,
    deny: Deny = None,
    popularity: Dial = None,
    unknown: Unknown = WhenUnknown.error,
    index: IndexFolder = None,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Recommend items to users of the model, or to a new user."""
    if bool(user) == bool(liked):
        raise FlagError("Give either `--user` or `--liked`, one or more times.")
    device = ranking_device(device)
    fitted = CML.load(model)
    ids = fitted.interactions
    typed = list(dict.fromkeys(typed_ids(ids.user_ids, user or [])))
    theirs = typed_ids(ids.item_ids, liked or [])
    if not typed and not theirs:
        raise EmptyDataError("There is no id in the files of `--user` or `--liked`.")
    try:
        rows, skipped = fitted.user_rows(typed, unknown.value)
    except UnknownIdError as error:
        raise ids_as_flags(error) from error
    users = ids.user_ids.take(rows).to_list()
    if skipped:
        show.note(f"nearfar: {left_out('--user', skipped, len(typed))}")
    if user and not users:
        raise EmptyDataError("There are no recommendations: no user is left.")
    allowed, n_allow = known_items(ids.item_ids, allow, "--allow")
    denied, n_deny = known_items(ids.item_ids, deny, "--deny")
    try:
        found = fitted.recommend(
            users if user else None,
            k,
            liked=theirs if liked else None,
            exclude_seen=not include_seen,
            allow=allowed,
            deny=denied,
            unknown=unknown.value,
            popularity=popularity,
            threads=threads,
            device=device,
            index=load_index(index, fitted),
        )
    except UnknownIdError as error:
        raise ids_as_flags(error, "items") from error
    name, asked = ("user_id", users) if user else ("liked", [", ".join(map(str, theirs))])
    if not user:
        found = found.with_columns(pl.lit(asked[0]).alias(name))
    lists = show.lists_of(found, asked, name, "item_id", ids.titles)
    if json:
        counts = unknown_counts(users=len(skipped), allow=n_allow, deny=n_deny)
        show.emit({"k": k, "recommendations": lists, **counts})
    else:
        show.ranked("Recommended to" if user else "Recommended to a user who likes", lists)


def similar(
    model: Model,
    *,
    item: Annotated[list[str] | None, _ids("Items near these.")] = None,
    user: Annotated[list[str] | None, _ids("Users near these.")] = None,
    k: Length = 10,
    popularity: Annotated[
        float | None,
        typer.Option(min=0, help="The popularity dial, with --item. [default: 0, distance alone]"),
    ] = None,
    index: IndexFolder = None,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Show the items nearest to an item, or the users nearest to a user."""
    if bool(item) == bool(user):
        raise FlagError("Give either `--item` or `--user`, one or more times.")
    if index is not None and not item:
        raise FlagError("`--index` is an index of items and needs `--item`.")
    if popularity is not None and not item:
        raise FlagError("`--popularity` is for items, which have weights, and needs `--item`.")
    device = ranking_device(device)
    fitted = CML.load(model)
    ids = fitted.interactions
    name, axis, words = ("item_id", ids.item_ids, item) if item else ("user_id", ids.user_ids, user)
    asked = list(dict.fromkeys(typed_ids(axis, words or [])))
    if not asked:
        raise EmptyDataError("There is no id in the files of `--item` or `--user`.")
    titles = ids.titles if item else None
    if item:
        of = load_index(index, fitted)
        found = fitted.similar_items(
            asked, k, popularity=popularity or 0.0, threads=threads, device=device, index=of
        )
    else:
        found = fitted.similar_users(asked, k, threads=threads, device=device)
    lists = show.lists_of(found, asked, "query_id", name, titles)
    if json:
        show.emit({"k": k, "neighbours": lists})
    else:
        show.ranked("Nearest to", lists)

"""``nearfar recommend`` and ``similar``: lists by a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError
from nearfar.cli.fitting import Json
from nearfar.cli.inputs import ids_as_flags, load_index, ranking_device, typed_ids
from nearfar.cli.using import (
    Allow,
    Deny,
    Device,
    Dial,
    Diversity,
    IncludeSeen,
    IndexFolder,
    Length,
    Model,
    Threads,
    Unknown,
    WhenUnknown,
    ids_option,
)
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, EmptyDataError, UnknownIdError
from nearfar.model.asked import ignored, left_out
from nearfar.model.cml import CML


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


def recommend(
    model: Model,
    *,
    user: Annotated[list[str] | None, ids_option("Recommend to these users.")] = None,
    liked: Annotated[
        list[str] | None, ids_option("Instead of --user: items that a new user likes.")
    ] = None,
    k: Length = 10,
    include_seen: IncludeSeen = False,
    allow: Allow = None,
    deny: Deny = None,
    popularity: Dial = None,
    diversity: Diversity = 0.0,
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
    users, skipped = _users(fitted, user or [], unknown)
    theirs = typed_ids(ids.item_ids, liked or [])
    if liked and not theirs:
        raise EmptyDataError("There is no id in the files of `--user` or `--liked`.")
    allowed, n_allow = known_items(ids.item_ids, allow, "--allow")
    denied, n_deny = known_items(ids.item_ids, deny, "--deny")
    try:
        found = fitted.recommend(
            users if user else None, k, liked=theirs if liked else None,
            exclude_seen=not include_seen, allow=allowed, deny=denied, unknown=unknown.value,
            popularity=popularity, diversity=diversity, threads=threads, device=device,
            index=load_index(index, fitted),
        )  # fmt: skip
    except UnknownIdError as error:
        raise ids_as_flags(error, "items") from error
    lists = _lists(found, users, theirs, ids)
    if json:
        counts = unknown_counts(users=skipped, allow=n_allow, deny=n_deny)
        show.emit({"k": k, "recommendations": lists, **counts})
    else:
        show.ranked("Recommended to" if user else "Recommended to a user who likes", lists)


def _lists(
    found: pl.DataFrame, users: list[Any], liked: list[Any], data: Interactions
) -> list[dict[str, Any]]:
    """Return the lists of users, or the one of a new user who likes some items."""
    if users:
        return show.lists_of(found, users, "user_id", "item_id", data.titles)
    name = ", ".join(map(str, liked))
    named = found.with_columns(pl.lit(name).alias("liked"))
    return show.lists_of(named, [name], "liked", "item_id", data.titles)


def _users(fitted: CML, words: list[str], unknown: WhenUnknown) -> tuple[list[Any], int]:
    """Return the ids of the users asked for that have a point, and the number of the others.

    The others are refused, or printed.
    """
    ids = fitted.interactions.user_ids
    typed = list(dict.fromkeys(typed_ids(ids, words)))
    if words and not typed:
        raise EmptyDataError("There is no id in the files of `--user` or `--liked`.")
    try:
        rows, skipped = fitted.user_rows(typed, unknown.value)
    except UnknownIdError as error:
        raise ids_as_flags(error) from error
    if skipped:
        show.note(f"nearfar: {left_out('--user', skipped, len(typed))}")
    if words and not len(rows):
        raise EmptyDataError("There are no recommendations: no user is left.")
    return ids.take(rows).to_list(), len(skipped)


def similar(
    model: Model,
    *,
    item: Annotated[list[str] | None, ids_option("Items near these.")] = None,
    user: Annotated[list[str] | None, ids_option("Users near these.")] = None,
    k: Length = 10,
    popularity: Annotated[
        float | None,
        typer.Option(min=0, help="The popularity dial, with --item. [default: 0, distance alone]"),
    ] = None,
    allow: Annotated[list[str] | None, ids_option("Show only these items.")] = None,
    deny: Annotated[list[str] | None, ids_option("Never show these items.")] = None,
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
    if (allow or deny) and not item:
        raise FlagError("`--allow` and `--deny` are for items, and need `--item`.")
    device = ranking_device(device)
    fitted = CML.load(model)
    ids = fitted.interactions
    name, axis, words = ("item_id", ids.item_ids, item) if item else ("user_id", ids.user_ids, user)
    asked = list(dict.fromkeys(typed_ids(axis, words or [])))
    if not asked:
        raise EmptyDataError("There is no id in the files of `--item` or `--user`.")
    titles = ids.titles if item else None
    allowed, n_allow = known_items(ids.item_ids, allow, "--allow")
    denied, n_deny = known_items(ids.item_ids, deny, "--deny")
    if item:
        of = load_index(index, fitted)
        found = fitted.similar_items(
            asked, k, allow=allowed, deny=denied, popularity=popularity or 0.0, threads=threads,
            device=device, index=of,
        )  # fmt: skip
    else:
        found = fitted.similar_users(asked, k, threads=threads, device=device)
    lists = show.lists_of(found, asked, "query_id", name, titles)
    if json:
        show.emit({"k": k, "neighbours": lists, **unknown_counts(allow=n_allow, deny=n_deny)})
    else:
        show.ranked("Nearest to", lists)

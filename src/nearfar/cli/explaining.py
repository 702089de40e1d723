"""``nearfar explain``: why a saved model recommends an item to a user."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError
from nearfar.cli.fitting import Json
from nearfar.cli.inputs import ids_as_flags, typed_ids
from nearfar.cli.using import Dial, Model, ids_option
from nearfar.errors import EmptyDataError, UnknownIdError
from nearfar.model.cml import CML
from nearfar.model.explanation import Explanation


def explain(
    model: Model,
    *,
    item: Annotated[str, typer.Option(metavar="ID", help="The item to explain.")],
    user: Annotated[str | None, typer.Option(metavar="ID", help="A user of the model.")] = None,
    liked: Annotated[
        list[str] | None, ids_option("Instead of --user: items that a new user likes.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of the user's items to show.")] = 3,
    popularity: Dial = None,
    json: Json = False,
) -> None:
    """Show why a user gets an item: their items that are nearest, and the parts of its score."""
    if bool(user) == bool(liked):
        raise FlagError("Give either `--user`, or `--liked` one or more times.")
    fitted = CML.load(model)
    ids = fitted.interactions
    theirs = typed_ids(ids.item_ids, liked or [])
    if liked and not theirs:
        raise EmptyDataError("There is no id in the files of `--liked`.")
    asked: dict[str, Any] = {"liked": theirs} if liked else {"user": _one(ids.user_ids, user)}
    try:
        why = fitted.explain(item=_one(ids.item_ids, item), **asked, k=k, popularity=popularity)
    except UnknownIdError as error:
        raise ids_as_flags(error, None) from error
    if json:
        show.emit(_plain(why))
    else:
        show.say(why)


def _one(ids: Any, word: str | None) -> Any:
    """Return an id in the type of the model's ids; a file of ids is not read."""
    return ids.typed([str(word)])[0]


def _plain(why: Explanation) -> dict[str, Any]:
    """Return the reasons for JSON."""
    return {**asdict(why), "nearest": why.nearest.to_dicts()}

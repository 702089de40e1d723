"""The data the peers are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.data.ids import Ids


class Data(NamedTuple):
    """Training pairs, and what they are validated on."""

    train: nf.Interactions
    validation: nf.Interactions
    """A tenth of the pairs."""
    looked_at: nf.Interactions
    """The validation pairs of the users that are ranked for between two epochs."""


@dataclass(frozen=True)
class Source:
    """What a process needs to make the data itself."""

    name: str
    """"gowalla", "made up" (the size of Echonest) or "planted"."""
    path: Path | None = None
    users: int = 5000
    """How many users are ranked for between two epochs."""

    def load(self) -> Data:
        """Read or draw the data; the same every time."""
        pairs = {"gowalla": self._gowalla, "made up": _made_up, "planted": planted}[self.name]()
        train, validation = nf.split.ratio(pairs, 0.1, seed=0)
        return Data(train, validation, _of_some_users(validation, self.users))

    def _gowalla(self) -> nf.Interactions:
        """Read the training part of the LightGCN files; their test part is not looked at."""
        table = pl.read_parquet(self.path).filter(pl.col("split") == "train")
        return nf.Interactions.from_frame(table, user="user", item="item")


def _made_up() -> nf.Interactions:
    from common import made_up

    return made_up()


def planted(
    n_groups: int = 8, users: int = 100, items: int = 50, each: int = 24
) -> nf.Interactions:
    """Draw users who have nearly all of their items in one group: easy for whoever learns."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(n_groups * users), each)
    at_home = rng.random(len(user)) < 0.9
    group = np.where(at_home, user // users, rng.integers(0, n_groups, len(user)))
    item = group * items + rng.integers(0, items, len(user))
    ids = Ids.numbered(n_groups * users), Ids.numbered(n_groups * items)
    return nf.Interactions.from_rows(user, item, *ids)


def _of_some_users(validation: nf.Interactions, count: int) -> nf.Interactions:
    """Keep the pairs of `count` users, drawn once and for all from those that have any."""
    active = np.flatnonzero(validation.user_counts)
    chosen = np.random.default_rng(0).permutation(active)[:count]
    kept = np.zeros(validation.n_users, np.bool_)
    kept[chosen] = True
    return validation.subset(kept[validation.pair_users()])

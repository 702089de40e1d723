"""Films in two genres, liked by two kinds of users: data for tests of hybrids."""

import numpy as np
import polars as pl

import nearfar as nf

N_USERS, N_ITEMS, NEW = 60, 40, 12
"""Even users like even items, which are westerns; odd ones like odd items. Items 30 to 39 have no
interactions, and NEW more are not on the axis."""


def films(first=0, last=N_ITEMS + NEW):
    numbers = range(first, last)
    return pl.DataFrame(
        {
            "item_id": list(numbers),
            "genres": [["western"] if i % 2 == 0 else ["drama", "war"] for i in numbers],
            "plot": [f"scene{i % 2} word{i % 7}" for i in numbers],
        }
    )


def features(first=0, last=N_ITEMS + NEW):
    return nf.Features.from_frame(films(first, last), categories="genres", text="plot")


def interactions(seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(N_USERS) for i in range(30) if (u + i) % 2 == 0]
    kept = [pair for pair in pairs if rng.random() < 0.5]
    made = nf.Interactions.from_pairs(kept)
    items = nf.Interactions.from_pairs([(0, i) for i in range(N_ITEMS)]).item_ids
    return made.aligned(made.user_ids, items)


DATA = interactions()
SHORT = {
    "dim": 8, "batch": 32, "negatives": 8, "optimiser": nf.Adam(0.02), "items": nf.Hybrid(),
}  # fmt: skip

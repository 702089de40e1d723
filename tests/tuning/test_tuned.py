"""The result of a study: its front."""

import polars as pl
import pytest

from nearfar.tuning.tuned import front_of

TABLE = pl.DataFrame(
    {
        "trial": [0, 1, 2, 3, 4, 5],
        "state": ["complete", "complete", "complete", "pruned", "complete", "complete"],
        "ndcg": [0.2, 0.3, 0.1, 0.9, 0.3, 0.25],
        "mmr": [10.0, 30.0, 20.0, 1.0, 30.0, 12.0],
    }
)


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (["ndcg", "mmr"], [1, 5, 0]),  # 2 is beaten by 0, 4 is the same as 1, 3 is not complete
        (["mmr", "ndcg"], [0, 5, 1]),
        (["ndcg"], [1]),
        (["mmr"], [0]),
    ],
)
def test_the_front_is_what_nothing_beats(objectives, expected):
    assert front_of(TABLE, objectives)["trial"].to_list() == expected

"""The co-occurrence term by its definition, and its options."""

import numpy as np
import pytest

from nearfar.errors import OptionError
from nearfar.method.co_occurrence import CoOccurrence, similarities
from nearfar.method.options import Options

LIKED = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0]], bool)


def test_similarities_are_the_sum_over_common_users():
    found = similarities(LIKED, nearest=3)
    counts = LIKED.sum(axis=0)
    for k in range(4):
        for j in range(4):
            common = LIKED[:, k] & LIKED[:, j]
            expected = np.sum(1 / LIKED[common].sum(axis=1)) / np.sqrt(counts[k] * counts[j])
            assert found[k, j] == pytest.approx(0.0 if j == k else expected, abs=1e-7)


def test_the_nearest_are_kept_and_the_smaller_of_equals():
    # of item 0: item 1 by two users, items 2 and 3 by one each of three items, f = 2 and 1
    full, cut = similarities(LIKED, 3), similarities(LIKED, 2)
    assert np.count_nonzero(cut, axis=1).max() == 2
    assert np.flatnonzero(cut[0]).tolist() == np.sort(np.argsort(-full[0])[:2]).tolist()
    equal = similarities(np.ones((2, 4), bool), 2)
    assert [np.flatnonzero(row).tolist() for row in equal] == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_options_are_checked():
    assert type(CoOccurrence(np.int64(5), np.float32(0.5)).weight) is float
    for bad in (0, -1, 2.5, True, "5", 10**6):
        with pytest.raises(OptionError, match="`nearest` must be a whole number"):
            CoOccurrence(bad)
    for bad in (-0.1, "0.1", np.nan, True):
        with pytest.raises(OptionError, match="`weight` must be a finite number"):
            CoOccurrence(weight=bad)


def test_options_saved_before_there_were_neighbours_have_none():
    plain = Options().to_dict()
    del plain["neighbours"]
    assert Options.from_dict(plain) == Options()
    chosen = Options(neighbours=CoOccurrence(7, 2.0))
    assert Options.from_dict(chosen.to_dict()).neighbours == CoOccurrence(7, 2.0)

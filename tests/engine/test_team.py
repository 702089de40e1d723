"""A team: every piece is done once, in order of the phases, whoever sleeps meanwhile."""

import threading
import time

import numpy as np
import pytest

from nearfar.engine.cpu.prefetch import prefetch, prefetch_row
from nearfar.engine.cpu.team import claim, done, make_team, wait
from nearfar.runtime.jit import kernel


@kernel
def work(team, phases, pieces, seen, order):
    """In phase p, piece i marks seen[p, i] and writes down how much of phase p - 1 it saw."""
    phase = 0
    for p in range(phases):
        while True:
            piece = claim(team, phase, pieces)
            if piece < 0:
                break
            seen[p, piece] += 1
            order[p, piece] = seen[p - 1].sum() if p > 0 else pieces
            done(team, phase, pieces)
        phase = wait(team, phase)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_pieces_are_done_once_and_phases_one_after_the_other(threads, pieces):
    phases, team = 300, make_team()
    seen, order = np.zeros((phases, pieces), np.int64), np.zeros((phases, pieces), np.int64)
    pool = [
        threading.Thread(target=work, args=(team, phases, pieces, seen, order))
        for _ in range(threads)
    ]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(60)
        assert not thread.is_alive()
    assert (seen == 1).all()
    assert (order == pieces).all()


def test_one_who_comes_late_holds_nobody_up_and_skips_what_is_over():
    team = make_team()
    seen, order = np.zeros((50, 4), np.int64), np.zeros((50, 4), np.int64)
    work(team, 50, 4, seen, order)  # the whole team's work, while the other is away
    begun = time.perf_counter()
    work(team, 50, 4, seen, order)
    assert time.perf_counter() - begun < 1.0
    assert (seen == 1).all()


def test_a_phase_is_open_until_its_last_piece_is_done():
    team = make_team()
    assert [int(claim(team, 0, 2)) for _ in range(3)] == [0, 1, -1]
    assert int(claim(team, 1, 2)) == -1  # not open yet
    done(team, 0, 2)
    assert int(claim(team, 1, 2)) == -1
    done(team, 0, 2)
    assert int(claim(team, 0, 2)) == -1  # over
    assert int(wait(team, 0)) == 1
    assert int(claim(team, 1, 2)) == 0


@kernel
def ask(table, counts, row):
    prefetch_row(table, row)
    prefetch(counts, row)
    return table[row].sum() + counts[row]


def test_asking_for_memory_changes_nothing():
    table, counts = np.ones((5, 3, 7), np.float32), np.arange(5)
    assert [float(ask(table, counts, row)) for row in range(5)] == [21, 22, 23, 24, 25]
    assert (table == 1).all()

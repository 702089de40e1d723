"""Blocks of work on threads: results, errors and interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from threadpoolctl import threadpool_info

from nearfar.errors import OptionError
from nearfar.runtime.threads import (
    Ahead,
    available_threads,
    checked_threads,
    one_blas_thread,
    run_blocks,
)


def blas_threads():
    """All but that of faiss, which has a number for each thread and is not used in the work."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [pool["num_threads"] for pool in pools if "faiss" not in pool["filepath"]]


FORKED = """
import os, signal, threading
from nearfar.runtime import threads

held, leave = threading.Event(), threading.Event()

def hold():
    with threads._limit.lock:
        held.set()
        leave.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    with threads.one_blas_thread():
        os._exit(0)
leave.set()
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_sets_the_limit():
    run = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "0\n"


@pytest.mark.parametrize("threads", [1, 3])
def test_every_block_is_worked_once_and_reported(threads):
    seen, reported = [], []

    def work(start):
        seen.append(start)
        return start * 10

    run_blocks(work, range(7), threads, reported.append)
    assert sorted(seen) == list(range(7))
    assert sorted(reported) == [10 * start for start in range(7)]


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_during_the_work_and_its_own_number_after(threads):
    before, during = blas_threads(), []

    def work(start):
        during.extend(blas_threads())
        return 1

    run_blocks(work, range(3), threads, lambda _: None)
    assert during
    assert set(during) == {1}
    assert blas_threads() == before


@pytest.mark.full  # long
def test_a_blas_that_compiled_code_loads_later_is_held_too():
    program = """
from nearfar.runtime.threads import Ahead, one_blas_thread
with one_blas_thread():
    import numba, numpy as np
    from threadpoolctl import threadpool_info
    x = np.ones((2, 2), np.float32)
    numba.njit(lambda x: np.dot(x, x))(x)
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    print(*blas)
"""
    environment = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert set(found.stdout.split()) == {"1"}


def test_nested_limits_are_given_back_by_the_last():
    before = blas_threads()
    with one_blas_thread():
        with one_blas_thread():
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_an_error_stops_the_run_and_leaves_no_thread():
    before, started = threading.active_count(), []

    def work(start):
        started.append(start)
        time.sleep(0.01)
        if start == 1:
            raise ValueError("block 1")
        return 1

    with pytest.raises(ValueError, match="block 1"):
        run_blocks(work, range(1000), 2, lambda _: None)
    assert len(started) < 100
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_comes_through_promptly_and_leaves_no_thread(threads):
    before, started = threading.active_count(), []

    def work(start):
        started.append(start)
        if len(started) == 4:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        return 1

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_blocks(work, range(2000), threads, lambda _: None)
    assert time.monotonic() - begin < 5  # all of it would take at least 10 s
    assert len(started) < 200
    assert threading.active_count() == before


def test_threads_default_to_the_available_cores():
    assert checked_threads(None) == available_threads() >= 1
    assert checked_threads(3) == 3


def test_no_threads_is_an_error():
    with pytest.raises(
        OptionError, match=r"`threads` must be a whole number from 1 .*; got 0\. None uses"
    ):
        checked_threads(0)


def test_a_result_is_computed_ahead():
    begun, go_on = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert go_on.wait(10)
        return threading.current_thread()

    ahead = Ahead(work)
    assert begun.wait(10)  # before anybody asks for the result
    go_on.set()
    assert ahead.result() is not threading.current_thread()


def test_what_goes_wrong_ahead_is_raised_where_the_result_is_asked_for():
    ahead = Ahead(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ahead.result()

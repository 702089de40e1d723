"""Compile the kernels that many test files use, each once, before pytest's workers start.

A worker of pytest-xdist is a process of its own: from an empty cache each of them would compile the
same kernels. Here the processes take the work from one list, so no two compile the same, and leave
it in the cache that all workers read. `make test` begins with this:

    python tests/warm.py

A kernel that one file uses is left to the worker that runs this file, and what is missing here is
compiled by the test that needs it.
"""

import multiprocessing
import os
import time
from functools import partial

import nearfar as nf
from conftest import plain, random_data
from engine.test_cluster import DEFAULT, precise, problem_of, trained
from engine.test_engine import LEARNING, NEGATIVES, SAMPLERS, SETTINGS, parts_of
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.method.loss import SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad
from nearfar.method.sampling import Shared, TwoStage, Uniform
from ranks import on_ranks


def steps(**options):
    """Compile a step with these options, and what gives the points."""
    engine = CPUEngine(
        Problem(random_data(), plain(**{"dim": 4, "batch": 16} | options), horizon=9)
    )
    engine.run(1)
    engine.settle()
    engine.points()
    engine.close()


def steps_of_ranks(name):
    """Compile a step of a cluster, and the kernels that all its tests use."""
    problem = problem_of(name)
    for state in (precise(problem), None):
        on_ranks(1, partial(trained, problem, state=state, chunks=(1,)))


def questions():
    """Compile what a saved model is asked with."""
    train, test = nf.split.ratio(random_data(), test=0.25, seed=0)
    model = nf.CML(plain(dim=4)).fit(train, epochs=1, progress=False)
    nf.evaluate(model, train, test)
    model.recommend_all(k=3)


def jobs():
    """Return what is to be compiled, the longest first."""
    pairs = {
        parts_of(sampler, learning): {
            "sampler": SAMPLERS[sampler],
            "negatives": NEGATIVES.get(sampler, 3),
            **LEARNING[learning],
        }
        for sampler, learning, _ in (one.values for one in SETTINGS if not one.marks)
    }
    soft = Triplet(temperature=0.3)
    others = [
        {"sampler": TwoStage(20), "spread_out": SpreadOut(0.1), "triplet": soft},
        *({"sampler": sampler} for sampler in (TwoStage(20), Shared(), Uniform())),
        *({"sampler": sampler, "triplet": soft} for sampler in (Shared(), Uniform())),
        *(
            {"sampler": sampler, "optimiser": SGD(0.1)}
            for sampler in (TwoStage(20), Shared(), Uniform())
        ),
        {"sampler": Uniform(), "optimiser": Adagrad(0.1)},
        {"sampler": Uniform(), "spread_out": SpreadOut(0.1)},
    ]
    ranks = [partial(steps_of_ranks, name) for name in DEFAULT]
    return [*ranks, *(partial(steps, **one) for one in (*pairs.values(), *others)), questions]


def do(job):
    job()


def main():
    begun, processes = time.perf_counter(), len(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(do, jobs()):
            pass
    print(f"kernels are ready after {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()

"""What full ranking costs, beside the bare matrix product and beside torch and implicit.

The best 50 of 159,063 items for each of 31,521 users (Echonest's size, made-up points on the sphere
and interactions), d = 128, float32, on one and on two threads:

- nearfar's `top_k` and its complete `evaluate`, training items left out;
- the limit: nothing but the product, into a tile that is used again, in nearfar's own tiles of 256
  users x 2,048 items, and in tiles of 1024 x 512, the best of ten shapes that were tried;
- torch: `matmul` and `topk` in blocks of 256 users, with and without leaving out training items;
- implicit: its compiled `topk`, what `recommend` calls, training items left out, with as many BLAS
  threads as its own.

    python benchmarks/evaluation.py [--users 2048] [--rounds 5]

Each round ranks a sample of the users; `all_users_s` is the median times 31,521 / sample. Before
timing it compares the lists. Once, before torch is loaded, all users are evaluated in one run and
the growth of the resident memory is measured. Writes results/evaluation.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

import nearfar as nf
from common import (
    DIM,
    N_ITEMS,
    N_USERS,
    Spread,
    forget_peak,
    made_up,
    memory_mib,
    ratios,
    rounds,
    show,
    unit_rows,
    write,
)
from nearfar.search.neighbours import BLOCK_ITEMS, BLOCK_USERS, Points, top_k

K = 50
SAME, BEST = (BLOCK_USERS, BLOCK_ITEMS), (1024, 512)
TORCH_USERS = 256
TOLERANCE = 1e-5
"""Of scores between -1 and 1, computed in another order."""
PAUSE = 0.3
"""Seconds in which the threads of OpenMP and BLAS stop spinning."""

Lists = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Question(NamedTuple):
    """Everything that is ranked, and the sample that is timed."""

    points: Points
    train: nf.Interactions
    test: nf.Interactions
    users: npt.NDArray[np.int32]
    """The sample."""
    queries: npt.NDArray[np.float32]
    """(sample, d) its points."""
    sample_train: sp.csr_matrix
    """(sample, M) its training pairs, as the scipy matrix that implicit wants."""
    sample_test: nf.Interactions
    """The test pairs of the sample, on all axes."""


def make_question(n_sample: int) -> Question:
    train, test = nf.split.ratio(made_up(), test=0.2, seed=0)
    rows = unit_rows(N_USERS + N_ITEMS, DIM, seed=1)
    points = Points(rows[:N_USERS], rows[N_USERS:])
    users = np.random.default_rng(2).choice(N_USERS, n_sample, replace=False).astype(np.int32)
    users.sort()
    return Question(
        points=points,
        train=train,
        test=test,
        users=users,
        queries=points.queries[users],
        sample_train=sp.csr_matrix(train.to_csr()[users]),
        sample_test=test.subset(np.isin(test.pair_users(), users)),
    )


# ------------------------------------------------------------------------- what is compared


def nearfar_lists(question: Question, threads: int, *, without_train: bool = True) -> Lists:
    train = question.train
    exclude = (train.indptr, train.items) if without_train else None
    return top_k(question.points, question.users, K, exclude=exclude, threads=threads)


def nearfar_evaluate(question: Question, threads: int) -> nf.Evaluation:
    return nf.evaluate(question.points, question.train, question.sample_test, k=K, threads=threads)


def product(question: Question, threads: int, shape: tuple[int, int]) -> None:
    """Multiply tile by tile, as `top_k` does, and do nothing with the tiles."""
    n_rows, width = shape
    targets, tiles = question.points.targets, SimpleQueue[npt.NDArray[np.float32]]()
    for _ in range(threads):
        tiles.put(np.empty(n_rows * width, np.float32))

    def block(start: int) -> None:
        queries, tile = question.queries[start : start + n_rows], tiles.get()
        for first in range(0, N_ITEMS, width):
            some = targets[first : first + width]
            out = tile[: len(queries) * len(some)].reshape(len(queries), len(some))
            np.matmul(queries, some.T, out=out)
        tiles.put(tile)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(block, range(0, len(question.queries), n_rows)))


def torch_lists(question: Question, threads: int, *, without_train: bool) -> Lists:
    import torch

    torch.set_num_threads(threads)
    queries, targets = torch.from_numpy(question.queries), torch.from_numpy(question.points.targets)
    buffer, found = torch.empty((TORCH_USERS, N_ITEMS)), []
    for start in range(0, len(queries), TORCH_USERS):
        some = queries[start : start + TORCH_USERS]
        scores = torch.matmul(some, targets.T, out=buffer[: len(some)])
        if without_train:
            known = question.sample_train[start : start + TORCH_USERS].tocoo()
            scores[torch.from_numpy(known.row), torch.from_numpy(known.col)] = -torch.inf
        found.append(torch.topk(scores, K, dim=1))
    return (
        torch.cat([block.indices for block in found]).numpy(),
        torch.cat([block.values for block in found]).numpy(),
    )


def implicit_lists(question: Question, threads: int) -> Lists:
    from implicit.cpu.topk import topk

    with threadpool_limits(threads, user_api="blas"):
        return topk(
            question.points.targets,
            question.queries,
            K,
            filter_query_items=question.sample_train,
            num_threads=threads,
        )


def make_cases(question: Question, threads: int) -> dict[str, Callable[[], object]]:
    """Give what is timed, by the name it has in the table."""
    return {
        "product, nearfar's tiles": partial(product, question, threads, SAME),
        "product, best tiles": partial(product, question, threads, BEST),
        "nearfar top_k": partial(nearfar_lists, question, threads),
        "nearfar evaluate": partial(nearfar_evaluate, question, threads),
        "torch, nothing left out": partial(torch_lists, question, threads, without_train=False),
        "torch": partial(torch_lists, question, threads, without_train=True),
        "implicit": partial(implicit_lists, question, threads),
    }


# ---------------------------------------------------------------------------------- checks


def check(question: Question) -> None:
    """Compare the lists of everybody with nearfar's, up to the rounding of the scores."""
    ours = nearfar_lists(question, 2)
    everything = nearfar_lists(question, 2, without_train=False)
    for name, theirs, expected in (
        ("torch, nothing left out", torch_lists(question, 2, without_train=False), everything),
        ("torch", torch_lists(question, 2, without_train=True), ours),
        ("implicit", implicit_lists(question, 2), ours),
    ):
        if not agree(question, theirs, expected):
            raise SystemExit(f"{name} and nearfar list other items; nothing is timed.")
    if question.train.contains(question.users[:, None], ours[0]).any():
        raise SystemExit("nearfar lists training items; nothing is timed.")
    figures = [nearfar_evaluate(question, threads).metrics for threads in (1, 2)]
    if figures[0] != figures[1]:
        raise SystemExit("nearfar's figures depend on the threads; nothing is timed.")


def agree(question: Question, theirs: Lists, ours: Lists) -> bool:
    """Whether both have the same scores at every rank, and list items that have these scores."""
    items, scores = theirs
    gathered = question.points.targets[items]
    own = np.einsum("uk,unk->un", question.queries, gathered, optimize=True)
    return bool(
        np.allclose(scores, ours[1], rtol=0, atol=TOLERANCE)
        and np.allclose(scores, own, rtol=0, atol=TOLERANCE)
    )


# ------------------------------------------------------------------------------------ main


def full_run(question: Question, threads: int) -> dict[str, object]:
    """Evaluate all users once; measure seconds, and the memory beyond what was there before."""
    nearfar_evaluate(question, threads)
    forget_peak()
    before, begun = memory_mib(), time.perf_counter()
    result = nf.evaluate(question.points, question.train, question.test, k=K, threads=threads)
    seconds = time.perf_counter() - begun
    return {
        "case": f"nearfar evaluate, {result.n_users:,} users in one run",
        "threads": threads,
        "us_per_user": round(1e6 * seconds / result.n_users, 1),
        "all_users_s": round(seconds, 2),
        "growth_mib": round(memory_mib("VmHWM") - before, 1),
    }


def timed(question: Question, threads: int, n_rounds: int) -> list[dict[str, object]]:
    """Time everything on `threads` threads, round by round."""
    seconds = rounds(make_cases(question, threads), n_rounds, pause=PAUSE)
    n, lines = len(question.users), []
    for name, values in seconds.items():
        each = Spread.of([1e6 * value / n for value in values])
        same = ratios(values, seconds["product, nearfar's tiles"])
        best = ratios(values, seconds["product, best tiles"])
        lines.append(
            {
                "case": name,
                "threads": threads,
                **each.columns("us_per_user", 1),
                "all_users_s": round(each.median * N_USERS / 1e6, 2),
                **same.columns("to_same_tiles", 2),
                **best.columns("to_best_tiles", 2),
            }
        )
    show(f"Best {K} of {N_ITEMS:,} items, {threads} threads, {n:,} users a round", lines)
    return lines


def main() -> None:
    """Run all users once, check, and time a sample in rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    question = make_question(args.users)
    whole = full_run(question, threads=2)
    show("All users; the full matrix of scores would take 19,126 MiB", [whole])
    check(question)
    lines = [line for threads in (1, 2) for line in timed(question, threads, args.rounds)]
    write("evaluation", [*lines, whole])


if __name__ == "__main__":
    main()

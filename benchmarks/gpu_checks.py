"""What gpu.py checks before it times anything, and what it trains: parity and time to quality."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gpu_rivals import Int64, Interactions, from_pairs, synchronise
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.gpu.gpu_engine import GPUEngine
from nearfar.engine.gpu.parts import EAGER
from nearfar.engine.problem import Engine, Problem
from nearfar.engine.reference import ReferenceEngine
from nearfar.evaluation import metrics
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.runtime.threads import available_threads
from nearfar.search.device_search import DevicePoints
from nearfar.search.neighbours import Exclusion, top_k

Line = dict[str, Any]
Say = Callable[[str], None]

# ---------------------------------------------------------------------------------- parity

STEPS = 40
EXACT, ROUNDED = 2e-4, 5e-3
"""How far points may be from the others after so many steps: in float32, and in TF32."""
LOSS = 0.05
"""With 2-stage sampling in TF32 some draws are others; then the losses may differ by so much."""
INTEGERS = ("pairs", "violated", "missed")
_PLAIN = Options(
    sampler=Uniform(), negatives=3, batch=16, triplet=Triplet(), optimiser=Adam(0.01),
    averaging=None, dim=9,
)  # fmt: skip
_SOFT, _RANK = Triplet(0.2, temperature=0.3), Triplet(0.5, rank_weight=True)
_BOTH = Triplet(0.7, rank_weight=True, temperature=0.6)
_ADAGRAD, _SGD, _SPREAD = Adagrad(0.1), SGD(0.01), SpreadOut(1.0)
_DISTINCT = Popularity(distinct=True, redraws=3)
CASES: list[dict[str, Any]] = [
    {"sampler": Uniform()},
    {"sampler": Uniform(), "triplet": _SOFT, "geometry": "ball", "spread_out": _SPREAD},
    {"sampler": Uniform(), "optimiser": _SGD, "triplet": _RANK, "geometry": "free"},
    {"sampler": Uniform(), "negatives": 20, "dim": 130, "spread_out": _SPREAD},
    {"sampler": _DISTINCT, "geometry": "free"},
    {
        "sampler": Popularity(), "optimiser": _ADAGRAD, "triplet": _RANK,
        "decorrelate": Decorrelate(1.0),
    },
    {"sampler": Popularity(0.7), "optimiser": _SGD, "triplet": _SOFT, "geometry": "ball"},
    {"sampler": TwoStage(20)},
    {
        "sampler": TwoStage(25, -0.5, distinct=False), "optimiser": _ADAGRAD, "triplet": _SOFT,
        "spread_out": _SPREAD,
    },
    {
        "sampler": TwoStage(20, vectors="initial"), "optimiser": _SGD, "triplet": _RANK,
        "geometry": "ball",
    },
    {"sampler": Shared(), "triplet": _SOFT, "negatives": 25, "dim": 128},
    {"sampler": Shared(), "optimiser": _ADAGRAD, "negatives": 25, "geometry": "ball"},
    {
        "sampler": Shared(0.7), "optimiser": _SGD, "triplet": _BOTH, "negatives": 25,
        "geometry": "free",
    },
]  # fmt: skip


def shortened(value: float) -> float:
    """Round to four significant places."""
    return float(f"{value:.4g}")


class Run(NamedTuple):
    """What an engine did in `STEPS` steps."""

    log: dict[str, npt.NDArray[np.float64]]
    points: npt.NDArray[np.float32]

    @classmethod
    def of(cls, engine: Engine, *, cut: int = STEPS) -> Run:
        """Let an engine run, in two goes if `cut` is less than all steps."""
        parts = [engine.run(n) for n in (cut, STEPS - cut) if n]
        log = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        run = cls(log, engine.points())
        engine.close()
        return run

    def beside(self, other: Run) -> Line:
        """Compare two runs."""
        losses = self.log["triplet"].sum(), other.log["triplet"].sum()
        return {
            "points_differ": shortened(np.abs(self.points - other.points).max()),
            "integers": all(np.array_equal(self.log[x], other.log[x]) for x in INTEGERS),
            "loss_differs": shortened(abs(losses[0] / losses[1] - 1.0)),
        }


def crowded(n_users: int = 30, n_items: int = 60) -> Interactions:
    """Draw small data; user 0 has nearly every item, so that places stay empty."""
    rng = np.random.default_rng(0)
    share = np.clip(0.15 * np.exp(rng.normal(0, 1, n_items)), 0, 0.9)
    liked = rng.random((n_users, n_items)) < share
    liked[0, : n_items - 3] = True
    liked[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    return from_pairs(*np.nonzero(liked), n_users, n_items)


def parity(device: torch.device, say: Say) -> list[Line]:
    """Compare the engines on small data over many options; a line for each comparison."""
    data, lines = crowded(), []
    for changes in CASES:
        problem = Problem(data, replace(_PLAIN, **changes), seed=3, horizon=200)
        for found in compared(problem, device):
            line = described(problem.options) | found
            lines.append(line)
            say(
                f"parity: {', '.join(str(v) for v in described(problem.options).values() if v)}:"
                f" {line['engine']} and {line['other']}: points differ by"
                f" {line['points_differ']:.1e}, {'holds' if line['holds'] else 'DOES NOT HOLD'}"
            )
    return lines


def described(options: Options) -> Line:
    """Name what makes a case."""
    triplet = options.triplet
    loss = ("rank", "soft rank") if triplet.rank_weight else ("hinge", "soft")
    terms = (options.spread_out, options.decorrelate)
    return {
        "sampler": type(options.sampler).__name__,
        "optimiser": type(options.optimiser).__name__,
        "loss": loss[bool(triplet.temperature)],
        "geometry": options.geometry,
        "terms": " ".join(type(term).__name__ for term in terms if term is not None) or None,
        "dim": options.dim,
    }


def compared(problem: Problem, device: torch.device) -> Iterator[Line]:
    """Compare the engines that there are on one problem."""
    reference = Run.of(ReferenceEngine(problem))
    eager = Run.of(GPUEngine(problem, device="cpu", parts=EAGER))
    yield judged("torch on the processor", "reference", eager.beside(reference), EXACT)
    if device.type != "cuda":
        return
    gpu = Run.of(GPUEngine(problem, device=device))
    yield judged("GPU", "torch on the processor", gpu.beside(eager), EXACT)
    yield judged("GPU", "reference", gpu.beside(reference), EXACT)
    again = Run.of(GPUEngine(problem, device=device), cut=15)
    yield judged("GPU", "GPU, another run", again.beside(gpu), 0.0)
    options = problem.options
    two_stage = isinstance(options.sampler, TwoStage)
    if two_stage or isinstance(options.sampler, Shared) or options.decorrelate is not None:
        fast = Run.of(GPUEngine(problem, device=device, fast=True)).beside(reference)
        limit = None if two_stage else ROUNDED
        yield judged("GPU, fast", "reference", fast, limit, integers=False)


def judged(
    engine: str, other: str, found: Line, limit: float | None, *, integers: bool = True
) -> Line:
    """Say whether two runs are the same, as far as they have to be."""
    near = found["loss_differs"] < LOSS if limit is None else found["points_differ"] <= limit
    holds = near and (found["integers"] or not integers)
    names = {"engine": engine, "other": other}
    return names | found | {"limit": limit, "holds": holds}


# --------------------------------------------------------------------------------- quality

K, EVERY = 50, 4
AGREE = 0.02
"""So far apart may the NDCG of both engines be after as many epochs, as a share of it."""


@dataclass(frozen=True)
class Fold:
    """What is learned from, and what lists are held against."""

    learn: Interactions
    valid: Interactions

    @classmethod
    def load(cls, file: Path) -> Fold:
        """Load what ``gpu.py --pack`` wrote."""
        with np.load(file) as arrays:
            n_items = int(arrays["n_items"])
            parts = [(arrays[f"{x}_indptr"], arrays[f"{x}_items"]) for x in ("train", "valid")]
        return cls(*(Interactions(len(ptr) - 1, n_items, ptr, items) for ptr, items in parts))

    @property
    def hidden(self) -> Exclusion:
        """What lists leave out."""
        return self.learn.indptr, self.learn.items

    def figures(self, points: Any, device: torch.device) -> dict[str, float]:
        """Rank all items for every user with validation items: NDCG and MAP."""
        n_users = self.learn.n_users
        users = np.flatnonzero(self.valid.user_counts).astype(np.int32)
        scorer = DevicePoints(points[:n_users], points[n_users:], device=device)
        lists = top_k(scorer, users, K, exclude=self.hidden).items
        hits, n_relevant = self._hits(users, lists), self.valid.user_counts[users]
        both = {"ndcg": metrics.ndcg, "map": metrics.average_precision}
        return {name: float(measure(hits, n_relevant).mean()) for name, measure in both.items()}

    def _hits(self, users: npt.NDArray[np.int32], lists: npt.NDArray[np.int32]) -> Any:
        pairs = self.valid.pair_users() * np.int64(self.valid.n_items) + self.valid.items
        listed: Int64 = users[:, None] * np.int64(self.valid.n_items) + lists
        at = np.minimum(np.searchsorted(pairs, listed), len(pairs) - 1)
        return (pairs[at] == listed) & (lists >= 0)


@dataclass(frozen=True)
class Training:
    """How long both engines are trained."""

    options: Options
    epochs: int
    cpu_seconds: float
    """The CPU engine begins no epoch that would end later."""


def quality(fold: Fold, how: Training, device: torch.device, say: Say) -> list[Line]:
    """Train with both engines; a line for each evaluation."""
    steps = Problem(fold.learn, how.options).steps_per_epoch
    problem = Problem(fold.learn, how.options, horizon=steps * how.epochs)
    threads = problem.useful_threads(available_threads())
    kind = "GPU" if device.type == "cuda" else "torch on the processor"
    lines = []
    for name, n, make, seconds in (
        (kind, None, lambda: GPUEngine(problem, device=device), np.inf),
        ("CPU", threads, lambda: CPUEngine(problem, threads=threads), how.cpu_seconds),
    ):
        compiling, begun = make(), time.perf_counter()
        compiling.run(1)
        compiling.close()
        del compiling
        first = {"engine": name, "threads": n, "first_s": round(time.perf_counter() - begun, 2)}
        for line in trained(make(), fold, how, seconds, device):
            lines.append(first | line)
            say(f"quality: {first | line}")
    return lines


def trained(
    engine: Any, fold: Fold, how: Training, seconds: float, device: torch.device
) -> Iterator[Line]:
    """Train epoch by epoch, and evaluate after the first, every fourth and the last."""
    steps, averaging = engine.problem.steps_per_epoch, how.options.averaging
    training = ranking = 0.0
    for epoch in range(1, how.epochs + 1):
        begun = time.perf_counter()
        engine.run(steps)
        engine.settle()
        if averaging is not None:
            engine.average(averaging.weight(epoch))
        synchronise(device)
        training += time.perf_counter() - begun
        last = epoch == how.epochs or training * (epoch + 1) / epoch > seconds
        if epoch == 1 or epoch % EVERY == 0 or last:
            begun = time.perf_counter()
            on_device = hasattr(engine, "points_on_device")
            points = engine.points_on_device() if on_device else engine.points()
            found = fold.figures(points, device)
            ranking += time.perf_counter() - begun
            yield {
                "epoch": epoch,
                "train_s": round(training, 3),
                "epoch_s": round(training / epoch, 4),
                "evaluate_s": round(ranking, 3),
                **{name: round(value, 5) for name, value in found.items()},
            }
        if last:
            break
    engine.close()


def disagreements(lines: list[Line]) -> list[str]:
    """Say after which epochs the two engines' NDCG is not the same, nearly enough."""
    gpu = {line["epoch"]: line["ndcg"] for line in lines if line["engine"] != "CPU"}
    cpu = {line["epoch"]: line["ndcg"] for line in lines if line["engine"] == "CPU"}
    return [
        f"after epoch {epoch} NDCG is {gpu[epoch]} and, of the CPU engine, {ndcg}"
        for epoch, ndcg in cpu.items()
        if epoch in gpu and abs(gpu[epoch] - ndcg) > AGREE * ndcg
    ]

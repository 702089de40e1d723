"""A peer in a process of its own, which trains and ranks when it is told to.

Libraries bring thread pools, patches of NumPy and crashes; in separate processes they meet
neither each other nor the clock. A process that has nothing to do sleeps. BLAS is held to one
thread everywhere (the evaluator, which is nearfar's for all, brings its own threads).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

import nearfar as nf
from nearfar.search.neighbours import Points
from peer_models import MissingPeerError, Peer, Setting, load
from peer_models.tables import Data, Source, planted

_PATIENCE_SECONDS = 400
_FAREWELL_SECONDS = 5
_ENVIRONMENT = {  # set before a process starts: thread pools read it once
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",  # on a busy machine spinning made PyTorch ten times slower
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}
_PLANTED_EPOCHS = 30
_BETTER_THAN_POPULARITY = 2.0


class PeerFailedError(Exception):
    """A peer cannot be run; the message is the reason."""


@dataclass(frozen=True)
class Job:
    """What a process is started with."""

    peer: str
    setting: Setting
    source: Source
    threads: int
    seed: int = 0
    check: bool = True
    """Whether it has to show first, on planted data, that it learns."""


class Ready(NamedTuple):
    """What a process reports once it can train."""

    setup_seconds: float
    """Import, a tiny run (which compiles what is to be compiled), and building the model."""
    planted_ndcg: float
    """NDCG@50 after some epochs on planted data; NaN if not asked for."""


class Lap(NamedTuple):
    """A stretch of training."""

    seconds: float
    processor_seconds: float
    """Processor time of the process, divided by the threads it was to use."""
    positives: int


class Worker:
    """The near end of a peer's process.

    Raises
    ------
    PeerFailedError
        The peer is not installed, fails, does not learn or does not answer.
    """

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        os.environ.update(_ENVIRONMENT)
        self._process = context.Process(target=_serve, args=(job, far), daemon=True)
        self._process.start()
        far.close()
        self.ready: Ready = self._answer()

    def train(self, threads: int, positives: int | None = None) -> Lap:
        """Train a pass, or about `positives` pairs of one."""
        return self._ask("train", threads, positives)

    def ndcg(self, everyone: bool = False) -> float:
        """Rank for the users that are looked at, or for all that have validation pairs."""
        return self._ask("ndcg", everyone)

    def close(self) -> None:
        """End the process: it stops when its pipe closes, or is stopped."""
        self._pipe.close()
        self._process.join(_FAREWELL_SECONDS)
        self._process.terminate()
        self._process.join()

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(_PATIENCE_SECONDS):
                raise PeerFailedError(f"no answer within {_PATIENCE_SECONDS} s")
            fine, answer = self._pipe.recv()
        except (PeerFailedError, EOFError) as error:
            self.close()
            raise PeerFailedError(str(error) or "its process died") from error
        if not fine:
            self.close()
            raise PeerFailedError(answer)
        return answer


def _serve(job: Job, pipe: Connection) -> None:
    """Answer requests until the other end goes away."""
    try:
        data = job.source.load()
        begun = time.perf_counter()
        make = load(job.peer)
        tiny = planted(2, 12, 16, 6)
        _trained(make, tiny, job, 1).factors()
        model = make(data.train, job.setting, threads=job.threads, seed=job.seed)
        seconds = time.perf_counter() - begun
        pipe.send((True, Ready(seconds, _checked(make, job) if job.check else np.nan)))
        while True:
            request = pipe.recv()
            pipe.send((True, _do(model, data, job, *request)))
    except EOFError:
        pass
    except (MissingPeerError, PeerFailedError) as error:
        pipe.send((False, str(error)))
    except Exception as error:  # whatever a library throws becomes a line of the table
        traceback.print_exc(file=sys.stderr)
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _do(model: Peer, data: Data, job: Job, what: str, *arguments: Any) -> Any:
    if what == "ndcg":
        (everyone,) = arguments
        looked_at = data.validation if everyone else data.looked_at
        return _ndcg(model, data.train, looked_at, job.threads)
    threads, positives = arguments
    model.use(threads)
    begun, worked = time.perf_counter(), time.process_time()
    done = model.epoch(positives)
    worked = (time.process_time() - worked) / threads
    return Lap(time.perf_counter() - begun, worked, done)


def _trained(make: type[Peer], train: nf.Interactions, job: Job, epochs: int) -> Peer:
    model = make(train, job.setting, threads=job.threads, seed=job.seed)
    for _ in range(epochs):
        model.epoch()
    return model


def _checked(make: type[Peer], job: Job) -> float:
    """Train on planted data; give NDCG@50, which has to be far above that of popularity."""
    train, validation = nf.split.ratio(planted(), 0.25, seed=0)
    found = _ndcg(_trained(make, train, job, _PLANTED_EPOCHS), train, validation, job.threads)
    popular = nf.evaluate(nf.baselines.MostPopular(train), train, validation, k=50, threads=1)
    needed = _BETTER_THAN_POPULARITY * popular.metrics["ndcg"]
    if not found > needed:
        raise PeerFailedError(
            f"does not learn: NDCG@50 {found:.3f} on planted data, {needed:.3f} needed"
        )
    return found


def _ndcg(model: Peer, train: nf.Interactions, validation: nf.Interactions, threads: int) -> float:
    points = Points(*model.factors())
    return nf.evaluate(points, train, validation, k=50, threads=threads).metrics["ndcg"]

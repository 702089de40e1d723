"""Table (a): positives per second.

All rows of a data set are built first, each in its process; then they are timed in turn, round
after round, so that what else happens on the machine hits all alike. A ratio is taken within a
round. Training starts from scratch, where nearly every pair still violates its margin: the most
work for a hinge loss, and the least for WARP.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peer_models import KINDS, version_of
from peer_models.process import Job, PeerFailedError, Worker
from peer_models.settings import Timed
from peer_models.tables import Source

THREADS = (1, 2)
OURS = {"adam": "Adam", "sgd": "SGD", "sgd_popular": "SGD, popular negatives"}
"""The rows of nearfar that all others are compared with."""
_REST_SECONDS = 0.03


@dataclass
class Row:
    """One setting on one number of threads: what was measured."""

    timed: Timed
    threads: int
    worker: Worker
    share: int = 0
    """Pairs a round."""
    speeds: list[float] = field(default_factory=list)

    def calibrate(self, seconds: float, n_pairs: int) -> None:
        """Find how many pairs take `seconds`; this first round is not counted."""
        batch = self.timed.batch or n_pairs // 16
        lap = self.worker.train(self.threads, 2 * batch)
        wanted = int(seconds * lap.positives / lap.seconds)
        self.share = min(max(wanted, 2 * batch), n_pairs)

    def measure(self) -> None:
        """Time one round."""
        time.sleep(_REST_SECONDS)  # let threads of the row before stop spinning
        lap = self.worker.train(self.threads, self.share)
        self.speeds.append(lap.positives / lap.seconds)


def table(
    source: Source, timed: Sequence[Timed], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time every row on one data set; give one record a row, and one for each that failed."""
    workers: dict[int, Worker] = {}
    missing: list[dict[str, Any]] = []
    for number, entry in enumerate(timed):
        try:
            check = all((entry.peer, entry.note) != (e.peer, e.note) for e in timed[:number])
            job = Job(entry.peer, entry.setting, source, max(THREADS), check=check)
            workers[number] = Worker(job)
        except PeerFailedError as error:
            missing.append(_record(source, entry) | {"note": f"not run: {error}"})
    rows = [Row(timed[n], t, worker) for t in THREADS for n, worker in workers.items()]
    rows = _measured(rows, source.load().train.n_pairs, rounds, seconds)
    for worker in workers.values():
        worker.close()
    return [_result(source, row, rows) for row in rows] + missing


def _measured(rows: list[Row], n_pairs: int, rounds: int, seconds: float) -> list[Row]:
    for row in rows:
        row.calibrate(seconds, n_pairs)
    for _ in range(rounds):
        for row in rows:
            row.measure()
    return rows


def _record(source: Source, entry: Timed) -> dict[str, Any]:
    return {
        "data": source.name,
        "peer": entry.peer,
        "optimiser": entry.note,
        "package": version_of(entry.peer),
        "batch": entry.batch,
        "threads": None,
    }


def _result(source: Source, row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    ready = row.worker.ready
    record = _record(source, row.timed) | {
        "threads": row.threads,
        "pairs_a_round": row.share if KINDS[row.timed.peer].batches else None,
        "rounds": len(row.speeds),
        **_spread("positives_per_second", row.speeds, 0),
    }
    for name, ours in _references(row, rows).items():
        ratios = [a / b for a, b in zip(ours.speeds, row.speeds, strict=True)]
        record |= _spread(f"nearfar_{name}_times_as_fast", ratios, 2)
    record["setup_seconds"] = round(ready.setup_seconds, 2)
    record["planted_ndcg"] = round(ready.planted_ndcg, 3)
    return record | {"note": ""}


def _references(row: Row, rows: Sequence[Row]) -> dict[str, Row]:
    """Find nearfar's rows to compare with: as many threads, the same batch (4096 for none)."""
    wanted = row.threads, row.timed.batch or 4096
    return {
        name: other
        for name, note in OURS.items()
        for other in rows
        if (other.timed.peer, other.timed.note) == ("nearfar", note)
        and (other.threads, other.timed.batch) == wanted
    }


def _spread(name: str, values: Sequence[float], digits: int) -> dict[str, float]:
    """Median, least and largest."""
    return {
        name: round(statistics.median(values), digits),
        f"{name}_min": round(min(values), digits),
        f"{name}_max": round(max(values), digits),
    }

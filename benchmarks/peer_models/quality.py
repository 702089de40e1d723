"""Table (b): seconds of training until a quality is reached.

A run trains pass by pass; ranking is off the clock. It looks after a pass if the training since
the last look is at least 5% of all so far: after every pass at first, less often later. What has
been reached is therefore known to a pass or 5%, the same for all.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peer_models import version_of
from peer_models.process import Job, PeerFailedError, Worker
from peer_models.tables import Source

SHARES = (0.90, 0.95, 1.00)
_LOOK_SHARE = 0.05
_FLAT_LOOKS = 6


class Look(NamedTuple):
    """What was found after a pass."""

    seconds: float
    """Of training so far."""
    epoch: int
    ndcg: float


@dataclass
class Curve:
    """The looks of a run."""

    looks: list[Look] = field(default_factory=list)

    @property
    def best(self) -> Look:
        """The first of the looks with the highest NDCG."""
        return max(self.looks, key=lambda look: look.ndcg)

    def seconds_to(self, ndcg: float) -> float | None:
        """Seconds of training until `ndcg` was reached; None if it was not."""
        return next((look.seconds for look in self.looks if look.ndcg >= ndcg), None)

    def is_flat(self) -> bool:
        """Whether the last looks found nothing better."""
        return len(self.looks) - self.looks.index(self.best) > _FLAT_LOOKS


def curve_of(cell: dict[str, Any]) -> Curve:
    """Read the curve of a line of the grid."""
    return Curve([Look(*look) for look in json.loads(cell["curve"])])


def looks(worker: Worker, threads: int, cap: float, *, processor: bool = False) -> Iterator[Look]:
    """Train pass by pass for at most about `cap` seconds, and look now and then.

    With `processor` the cap counts processor time, so that a busy machine cuts nothing short.
    """
    seconds, seen, used, epoch = 0.0, 0.0, 0.0, 0
    while used < cap:
        lap = worker.train(threads)
        seconds, epoch = seconds + lap.seconds, epoch + 1
        used += lap.processor_seconds if processor else lap.seconds
        if seconds - seen >= _LOOK_SHARE * seconds or used >= cap:
            seen = seconds
            yield Look(round(seconds, 3), epoch, round(worker.ndcg(), 5))


@dataclass
class Contestant:
    """A peer with the setting that the grid has chosen for it."""

    peer: str
    cell: dict[str, Any]
    """Its line in the grid."""
    goal: float
    """NDCG to stop at."""
    curves: list[Curve] = field(default_factory=list)
    """One a round."""
    setup_seconds: list[float] = field(default_factory=list)
    everyone: float = math.nan
    """NDCG after the first round for all users with validation pairs."""
    wall_seconds: float = 0.0
    """What the last round took in all."""
    note: str = ""

    def run(self, source: Source, threads: int, cap: float) -> None:
        """Train once from scratch until the goal or the cap."""
        begun, curve = time.perf_counter(), Curve()
        setting = json.loads(self.cell["setting"])
        try:
            worker = Worker(Job(self.peer, setting, source, threads, check=False))
            for look in looks(worker, threads, cap):
                curve.looks.append(look)
                if look.ndcg >= self.goal:
                    break
            if not self.curves:
                self.everyone = worker.ndcg(everyone=True)
            worker.close()
        except PeerFailedError as error:
            self.note = f"not run: {error}"
            return
        self.curves.append(curve)
        self.setup_seconds.append(worker.ready.setup_seconds)
        self.wall_seconds = time.perf_counter() - begun

    def is_worth_repeating(self, deadline: float) -> bool:
        """Whether another round says something new and ends in time."""
        if self.note or not self.curves or self.curves[-1].best.ndcg < self.goal:
            return False
        return time.monotonic() + self.wall_seconds < deadline


def play(
    contestants: Sequence[Contestant],
    source: Source,
    threads: int,
    *,
    cap: float,
    rounds: int,
    deadline: float,
) -> None:
    """Run all in turn; further rounds leave out who would not be done by the deadline.

    The seed is the same in every round, so the spread is that of the clock (and of the races of
    those who train without locks).
    """
    for number in range(rounds):
        for contestant in contestants:
            if number == 0 or contestant.is_worth_repeating(deadline):
                contestant.run(source, threads, cap)
                print(f"  {contestant.peer}: {contestant.wall_seconds:.0f} s", flush=True)


def records(contestants: Sequence[Contestant], own: Contestant, cap: float) -> list[dict[str, Any]]:
    """Make the table's lines: one for each peer and share of its best, beside nearfar."""
    return [
        _record(contestant, share, own, cap)
        for contestant in contestants
        for share in (SHARES if contestant.curves else SHARES[:1])
    ]


def _record(contestant: Contestant, share: float, own: Contestant, cap: float) -> dict[str, Any]:
    cell = contestant.cell
    target = round(share * cell["best_ndcg"], 5)
    record = {
        "peer": contestant.peer,
        "package": version_of(contestant.peer),
        "setting": cell["setting"],
        "own_best": cell["best_ndcg"],
        "share": share,
        "target": target,
        "rounds": len(contestant.curves),
        "cap_seconds": cap,
        **_spread("seconds", _times(contestant, target)),
        "seconds_in_grid": curve_of(cell).seconds_to(target),
    }
    times = zip(_times(contestant, target), _times(own, target), strict=False)
    ratios = [(theirs or cap) / seconds for theirs, seconds in times if seconds is not None]
    record["nearfar_setting"] = own.cell["setting"]
    record |= _spread("nearfar_seconds", _times(own, target))
    record |= _spread("nearfar_times_as_fast", ratios)
    record["ratio_is_at_least"] = None in _times(contestant, target)
    record["ndcg_of_everyone"] = round(contestant.everyone, 5)
    record["setup_seconds"] = round(statistics.median(contestant.setup_seconds or [math.nan]), 2)
    return record | {"note": contestant.note}


def _times(contestant: Contestant, target: float) -> list[float | None]:
    """Seconds to the target in each round; None where it was not reached before the cap."""
    return [curve.seconds_to(target) for curve in contestant.curves]


def _spread(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """Median, least and largest; None if a round did not get there, or there was none."""
    names = (name, f"{name}_min", f"{name}_max")
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return dict.fromkeys(names)
    figures = (statistics.median(known), min(known), max(known))
    return {key: round(figure, 2) for key, figure in zip(names, figures, strict=True)}

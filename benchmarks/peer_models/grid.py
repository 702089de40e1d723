"""The grid: which setting of a peer is its best, and what that reaches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from peer_models import Setting, version_of
from peer_models.process import Job, PeerFailedError, Worker
from peer_models.quality import Curve, looks
from peer_models.settings import CAPS, GRIDS
from peer_models.tables import Source


class Grid:
    """The results of a grid, kept in a file that grows cell by cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: list[dict[str, Any]] = []
        if path.exists():
            self.cells = pl.read_csv(path, infer_schema_length=None).to_dicts()

    def run(self, peers: Sequence[str], source: Source, threads: int) -> None:
        """Run the cells that are not in the file yet; each is written as soon as it is done."""
        done = {(cell["peer"], cell["setting"]) for cell in self.cells}
        for peer, setting in _in_turn(peers):
            if (peer, _key(setting)) in done:
                continue
            begun = time.perf_counter()
            try:
                cell = self._cell(peer, setting, source, threads)
            except PeerFailedError as error:
                print(f"{peer} {_key(setting)}: not run: {error}", flush=True)
                continue
            self.cells.append(cell)
            pl.DataFrame(self.cells, infer_schema_length=None).write_csv(self.path)
            shown = {name: cell[name] for name in ("best_ndcg", "best_epoch", "ended")}
            seconds = time.perf_counter() - begun
            print(f"{peer} {_key(setting)}: {shown}, {seconds:.0f} s in all", flush=True)

    def _cell(self, peer: str, setting: Setting, source: Source, threads: int) -> dict[str, Any]:
        cap = CAPS[peer]
        worker = Worker(Job(peer, setting, source, threads, check=False))
        curve = Curve()
        for look in looks(worker, threads, cap, processor=True):
            curve.looks.append(look)
            if curve.is_flat() and look.seconds > cap / 2:
                break
        worker.close()
        best = curve.best
        return {
            "peer": peer,
            "package": version_of(peer),
            "setting": _key(setting),
            "threads": threads,
            "users": source.users,
            "cap_seconds": cap,
            "best_ndcg": best.ndcg,
            "best_epoch": best.epoch,
            "best_seconds": best.seconds,
            "epochs": curve.looks[-1].epoch,
            "seconds": curve.looks[-1].seconds,
            "ended": "flat" if curve.is_flat() else "at the cap",
            "curve": json.dumps(curve.looks),
        }

    def best_of(self, peer: str) -> dict[str, Any] | None:
        """Find the peer's cell with the highest NDCG; None if it has no cell."""
        cells = [cell for cell in self.cells if cell["peer"] == peer]
        return max(cells, key=lambda cell: cell["best_ndcg"], default=None)


def _in_turn(peers: Sequence[str]) -> Iterator[tuple[str, Setting]]:
    """Give the first setting of every peer, then the second: a grid cut short has all peers."""
    for number in range(max(len(GRIDS[peer]) for peer in peers)):
        for peer in peers:
            if number < len(GRIDS[peer]):
                yield peer, GRIDS[peer][number]


def _key(setting: Setting) -> str:
    return json.dumps(setting, sort_keys=True)

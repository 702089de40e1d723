"""nearfar against its peers: positives per second, and seconds of training to a given quality.

    python benchmarks/peers.py [--tables ab] [--only PEER ...]    about 11 minutes
    python benchmarks/peers.py --grid                              about 25 minutes, resumable

Table (a), results/peers_speed.csv: positives per second at d = 128 with one negative, on one and
two threads, on Gowalla and on made-up data of Echonest's size. Table (b),
results/peers_quality.csv: seconds of training until NDCG@50 on a validation part of Gowalla
reaches 90, 95 and 100% of a peer's own best, for the peer and for nearfar. The best is the one of
a grid, results/peers_grid.csv, which `--grid` makes: every finished cell is kept. nearfar is shown
with its own best setting and with the one of its grid that got to the peer's best soonest; peers
are shown with their best setting only, which at 90 and 95% need not be their quickest.

Every peer runs in a process of its own and is ranked by the same evaluator; what is not installed
has a line that says so. Gowalla is not part of the project (see --data): without its file only the
made-up part of table (a) is run, and the exit status is 3.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from peer_models import KINDS, speed
from peer_models.grid import Grid
from peer_models.quality import Contestant, play, records
from peer_models.settings import TIMED
from peer_models.tables import Source

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DATA = HERE / "../../shared/data/gowalla-lightgcn.parquet"
NO_DATA = 3


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="gowalla-lightgcn.parquet")
    parser.add_argument("--grid", action="store_true", help="run the grid's missing cells")
    parser.add_argument("--tables", default="ab", help="which tables: a, b or ab")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="PEER")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of table (a)")
    parser.add_argument("--seconds", type=float, default=0.6, help="of a row in a round of (a)")
    parser.add_argument("--cap", type=float, default=45.0, help="seconds of training in (b)")
    parser.add_argument("--quality-rounds", type=int, default=3, help="most rounds of table (b)")
    parser.add_argument(
        "--minutes", type=float, default=11.0, help="after these (b) repeats nothing"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of (b) and of the grid")
    parser.add_argument("--users", type=int, default=5000, help="users ranked for between passes")
    return parser.parse_args()


def main() -> int:
    """Run what is asked for."""
    args, begun = arguments(), time.monotonic()
    RESULTS.mkdir(exist_ok=True)
    gowalla = Source("gowalla", args.data, args.users)
    has_gowalla = args.data.exists()
    if not has_gowalla:
        print(f"not run: all that needs Gowalla; there is no {args.data}, see --data.")
    if args.grid:
        if has_gowalla:
            Grid(RESULTS / "peers_grid.csv").run(args.only, gowalla, args.threads)
        return 0 if has_gowalla else NO_DATA
    if "a" in args.tables:
        speeds(args, [gowalla] * has_gowalla)
    if "b" in args.tables and has_gowalla:
        qualities(args, gowalla, begun + 60 * args.minutes)
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes in all")
    return 0 if has_gowalla else NO_DATA


def speeds(args: argparse.Namespace, sources: Iterable[Source]) -> None:
    """Make table (a)."""
    lines: list[dict[str, Any]] = []
    for source in (*sources, Source("made up")):
        chosen = [
            entry
            for entry in TIMED
            if entry.peer in args.only and (entry.echonest or source.name == "gowalla")
        ]
        lines += speed.table(source, chosen, args.rounds, args.seconds)
    frame = pl.DataFrame(lines, infer_schema_length=None)
    frame.write_csv(RESULTS / "peers_speed.csv")
    for (name,), part in frame.group_by("data", maintain_order=True):
        show_speeds(str(name), part)


def show_speeds(name: str, frame: pl.DataFrame) -> None:
    titles = (
        "peer", "optimiser", "batch", "threads", "1,000 positives/s",
        *(f"nearfar {note} is x times as fast" for note in speed.OURS.values()), "set-up s", "note",
    )  # fmt: skip
    lines = [
        (
            line["peer"],
            line["optimiser"],
            line["batch"] or "-",
            line["threads"] or "-",
            spread(line, "positives_per_second", ",.1f", 1e-3),
            *(spread(line, f"nearfar_{name}_times_as_fast", ".2f") for name in speed.OURS),
            line.get("setup_seconds"),
            line["note"],
        )
        for line in frame.sort("threads", maintain_order=True).to_dicts()
    ]
    show(f"(a) positives per second, {name}: median (min to max)", titles, lines)


def qualities(args: argparse.Namespace, source: Source, deadline: float) -> None:
    """Make table (b)."""
    grid = Grid(RESULTS / "peers_grid.csv")
    everyone = contestants(grid, args.only)
    if len(everyone) < 2:
        print("not run: table (b); results/peers_grid.csv lacks nearfar or any peer, see --grid.")
        return
    play(
        everyone, source, args.threads, cap=args.cap, rounds=args.quality_rounds, deadline=deadline
    )
    lines = records(everyone[1:], everyone[0], args.cap)
    pl.DataFrame(lines, infer_schema_length=None).write_csv(RESULTS / "peers_quality.csv")
    show_qualities(lines, args.cap)
    for name in args.only:
        if grid.best_of(name) is None:
            print(f"{name}: not run: it has no line in results/peers_grid.csv.")


def contestants(grid: Grid, names: Sequence[str]) -> list[Contestant]:
    """Give nearfar and each peer with the best setting of its grid; nearfar comes first.

    nearfar stops at the best of the best peer.
    """
    cells = {name: cell for name in names if (cell := grid.best_of(name)) is not None}
    if "nearfar" not in cells:
        return []
    own = cells.pop("nearfar")
    peers = [Contestant(name, cell, cell["best_ndcg"]) for name, cell in cells.items()]
    farthest = max((each.goal for each in peers), default=own["best_ndcg"])
    return [Contestant("nearfar", own, farthest), *peers]


def show_qualities(lines: Sequence[dict[str, Any]], cap: float) -> None:
    titles = (
        "peer", "of its best", "NDCG@50", "s", "s in grid", "nearfar s", "nearfar times as fast",
        "set-up s", "note",
    )  # fmt: skip
    rows = []
    for line in lines:
        late = f">{cap:.0f}"
        bound = ">" if line["ratio_is_at_least"] else ""
        ratio = spread(line, "nearfar_times_as_fast", ".1f")
        rows.append(
            (
                line["peer"],
                f"{line['share']:.0%}",
                f"{line['target']:.4f}",
                spread(line, "seconds", ".1f") or (late if line["rounds"] else "-"),
                f"{line['seconds_in_grid']:.1f}",
                spread(line, "nearfar_seconds", ".1f") or late,
                ratio and bound + ratio,
                line["setup_seconds"],
                line["note"],
            )
        )
    title = "(b) seconds of training to a share of the peer's own best: median (min to max)"
    show(title, titles, rows)


def spread(line: dict[str, Any], name: str, form: str, unit: float = 1.0) -> str:
    """Write a median with its spread; nothing where it is missing."""
    figures = [line.get(key) for key in (name, f"{name}_min", f"{name}_max")]
    if None in figures:
        return ""
    median, least, largest = (format(figure * unit, form) for figure in figures)
    return f"{median} ({least} to {largest})"


def show(title: str, titles: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(*titles, title=title, title_justify="left")
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Run every benchmark, one after the other, and draw the picture.

    make bench            (or, in an environment with the bench extra: python benchmarks/run.py)

Each script prints its tables and writes them to results/. One that fails does not stop the others;
it is named at the end, and the exit status is 1. Needs Linux, about 12 GiB of memory and 20
minutes; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    ["step.py"],
    ["catalogue.py"],
    ["evaluation.py"],
    ["dial.py"],
    ["index.py"],
    ["stores.py"],
    ["memory.py"],
    ["busy.py"],
    ["compilation.py"],
    ["peers.py"],
    ["plot.py"],
)
NO_DATA = 3
"""Exit status of a script that left out what needs data outside the project, and said so."""


def main() -> None:
    """Run the scripts; those named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", help="such as step.py")
    chosen = parser.parse_args().only
    outcomes = []
    for script, *arguments in SCRIPTS:
        if chosen and script not in chosen:
            continue
        print(f"\n=== {script}", flush=True)
        begun = time.perf_counter()
        status = subprocess.run([sys.executable, HERE / script, *arguments]).returncode
        outcomes.append((script, status, time.perf_counter() - begun))
    print()
    for script, status, seconds in outcomes:
        said = {0: "done", NO_DATA: "done, but for what needs data that is not here"}
        print(f"{script:18} {said.get(status, f'FAILED ({status})'):50} {seconds:4.0f} s")
    if any(status not in (0, NO_DATA) for _, status, _ in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

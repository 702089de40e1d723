"""Build the documentation site: ``python website/make_site.py``, or ``make docs``.

Warnings are errors: links between pages, anchors and names of the reference are checked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

import nearfar as nf
from stage import ROOT, stage

HERE = Path(__file__).parent


def sphinx(sources: Path, folder: Path, *, fresh: bool = False, run: bool = True) -> int:
    """Build ``folder/html`` from sources and return Sphinx's exit code: 0 without warnings.

    Notebooks that changed are run unless `run` is false.
    """
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE)]
    options += ["-d", str(folder / "doctrees"), *(["-E", "-a"] if fresh else [])]
    options += ["-D", f"nb_execution_mode={'cache' if run else 'off'}"]
    options += ["-D", f"nb_execution_cache_path={folder / 'notebooks'}"]
    return build_main([*options, str(sources), str(folder / "html")])


def build(folder: Path, *, fresh: bool = False) -> int:
    """Lay out the sources, build the site, and return the exit code."""
    stage(folder / "sources")
    return sphinx(folder / "sources", folder, fresh=fresh, run=has_data())


def has_data() -> bool:
    """Return whether the notebooks can be run; say so if not."""
    try:
        nf.datasets.load("ml-100k")
    except nf.errors.SourceError as error:
        print(f"Notebooks are shown without results: {error}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """Build the site and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--fresh", action="store_true", help="build every page again")
    asked = parser.parse_args()
    code = build(asked.out, fresh=asked.fresh)
    if code == 0:
        print(asked.out / "html" / "index.html")
    return code


if __name__ == "__main__":
    sys.exit(main())

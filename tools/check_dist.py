"""Check what is in the sdist and the wheel in ``dist``: all that belongs there and nothing else.

    python tools/check_dist.py
    python tools/check_dist.py --tag v0.1.0     and the tag is the version

The wheel holds the files of ``src/nearfar`` and what describes them. The sdist holds what its own
tests need: the tests, and the documentation and benchmarks whose numbers they compare; no data.
"""

import argparse
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIBED = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
"""The files beside the package in a wheel."""
NEEDED = {
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO",
    "README.md", "SECURITY.md", "constraints.txt", "pyproject.toml", "tests/conftest.py",
    "tests/warm.py", "docs/README.md", "benchmarks/report.py",
}  # fmt: skip
"""Some of what an sdist must have; the rest is the package's source and the other tests."""
DATA = (".gz", ".h5", ".npy", ".npz", ".parquet", ".safetensors", ".zip")
"""Endings of data, which are in no sdist."""
LARGEST = 2**20
"""The most bytes of a file in an sdist."""


def version_of(root):
    """Return the version in `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]


def files_under(root, folder):
    """Return the files of a folder, relative to `root`, without compiled ones."""
    paths = (path for path in (root / folder).rglob("*") if path.is_file())
    return {p.relative_to(root).as_posix() for p in paths if "__pycache__" not in p.parts}


def wheel_faults(names, root):
    """List what a wheel with these names lacks, and what does not belong there."""
    version = version_of(root)
    package = {name.removeprefix("src/") for name in files_under(root, "src/nearfar")}
    expected = package | {f"nearfar-{version}.dist-info/{name}" for name in DESCRIBED}
    missing = [f"the wheel lacks {name}" for name in sorted(expected - names)]
    return missing + [f"the wheel has {name}" for name in sorted(names - expected)]


def sdist_faults(sizes, root):
    """List what an sdist with these sizes by name lacks, and what does not belong there."""
    top = f"nearfar-{version_of(root)}/"
    names = {name.removeprefix(top): size for name, size in sizes.items()}
    tests = {name for name in files_under(root, "tests") if name.endswith(".py")}
    needed = NEEDED | tests | files_under(root, "src/nearfar")
    faults = [f"the sdist lacks {name}" for name in sorted(needed - set(names))]
    for name, size in sorted(names.items()):
        hidden = name.startswith(".") and name != ".gitignore"  # which hatchling needs
        if hidden or name.endswith(DATA) or size > LARGEST:
            faults.append(f"the sdist has {name} of {size:,} bytes")
    return faults


def faults_of(folder, root):
    """List what is wrong with the two files in a folder."""
    version = version_of(root)
    with zipfile.ZipFile(folder / f"nearfar-{version}-py3-none-any.whl") as wheel:
        faults = wheel_faults(set(wheel.namelist()), root)
    with tarfile.open(folder / f"nearfar-{version}.tar.gz") as sdist:
        sizes = {member.name: member.size for member in sdist.getmembers() if member.isfile()}
    return faults + sdist_faults(sizes, root)


def main():
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--tag", help="a tag that must be v and the version")
    tag = reader.parse_args().tag
    faults = faults_of(ROOT / "dist", ROOT)
    if tag is not None and tag != f"v{version_of(ROOT)}":
        faults.append(f"the tag is {tag}; the version asks for v{version_of(ROOT)}")
    if faults:
        sys.exit("\n".join(faults))
    print("dist: the sdist and the wheel have what belongs there, and nothing else")


if __name__ == "__main__":
    main()

"""Try the built package in one clean environment: the wheel, installed, and the tests of the sdist.

    python tools/release_environment.py 3.12 lowest
    python tools/release_environment.py 3.11 newest --torch 2.13.0

uv resolves what the package declares for its tests, to the lowest versions that have a wheel for
this Python or to the newest ones, and says which in ``build/release/PYTHON-END/requirements.txt``.
PyTorch is left out unless a version of it is given: most of its builds are several gigabytes.
`src` is taken away from the unpacked sdist, so nothing but the wheel can be imported. `make
release-check` runs this for every Python and both ends, one target each. What follows `--` is for
pytest.

At the lowest end, deprecations are shown but are no errors: old releases of some packages use what
the newest releases of others deprecate.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLUTION = {"lowest": "lowest-direct", "newest": "highest"}
"""What uv calls the two ends."""
WARNINGS = {
    "lowest": ("-W", "default::DeprecationWarning", "-W", "default::PendingDeprecationWarning"),
    "newest": (),
}
"""What is no error at each end, though warnings are errors in tests."""
WHICH = "import nearfar, sys; print(nearfar.__file__); assert sys.prefix in nearfar.__file__"


def call(*words, **options):
    """Run a command after printing it; stop if it fails."""
    print("+", *words, flush=True)
    subprocess.run([str(word) for word in words], check=True, **options)


def the_only(pattern):
    """Return the file in ``dist`` that this pattern matches."""
    found = sorted((ROOT / "dist").glob(pattern))
    if len(found) != 1:
        sys.exit(f"`dist` must have one {pattern}; it has {len(found)}: run `make dist` first.")
    return found[0]


def unpack(sdist, folder):
    """Unpack the sdist, without the package's source, and return its folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    (source / "src").rename(folder / "src-that-is-not-used")
    return source


def resolve(source, folder, end, torch):
    """Write the requirements of the tests at this end, and return their file.

    An override whose marker is never true leaves PyTorch out.
    """
    overrides, requirements = folder / "overrides.txt", folder / "requirements.txt"
    overrides.write_text(f"torch=={torch}\n" if torch else 'torch; python_version < "3"\n')
    call(
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--only-binary", ":all:", "--resolution", RESOLUTION[end], "--extra", "test"),
        *("--python", folder / "venv" / "bin" / "python", "--override", overrides),
        *("--output-file", requirements, source / "pyproject.toml"),
    )
    return requirements


def install(source, folder, end, torch):
    """Install what the tests need and the wheel, and return the interpreter."""
    python = folder / "venv" / "bin" / "python"
    requirements = resolve(source, folder, end, torch)
    call("uv", "pip", "sync", "--quiet", "--python", python, requirements)
    call("uv", "pip", "install", "--no-deps", "--python", python, the_only("*.whl"))
    call(python, "-P", "-c", WHICH, cwd=folder)
    return python


def test(python, source, workers, more):
    """Run the default tests, and the doctests of the installed package."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(source.parent / "kernels")}
    environment |= {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    words = [
        python,
        "-m",
        "pytest",
        "-c",
        "pyproject.toml",
        "-n",
        workers,
        "--dist",
        "loadfile",
        *more,
    ]
    call(python, "tests/warm.py", cwd=source, env=environment)
    call(*words, "--pyargs", "nearfar", "tests", cwd=source, env=environment)


def clean(folder):
    """Empty the folder of an environment, but for its compiled kernels."""
    for path in [path for path in folder.glob("*") if path.name != "kernels"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def main():
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("python", help="a Python version, for example 3.12")
    reader.add_argument("end", choices=RESOLUTION)
    reader.add_argument("--torch", metavar="VERSION", help="PyTorch, which is left out otherwise")
    reader.add_argument("--workers", default="2")
    reader.add_argument("pytest", nargs="*", help="more options of pytest, after --")
    given = reader.parse_args()
    folder = ROOT / "build" / "release" / f"{given.python}-{given.end}"
    clean(folder)
    call("uv", "venv", "--quiet", "--python", given.python, folder / "venv")
    source = unpack(the_only("*.tar.gz"), folder)
    python = install(source, folder, given.end, given.torch)
    test(python, source, given.workers, [*WARNINGS[given.end], *given.pytest])


if __name__ == "__main__":
    main()

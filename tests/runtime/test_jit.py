"""Compiled code is never older than the sources it was made from."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import NamedTuple

import numba
import numpy as np
import pytest

import nearfar.runtime.jit
from nearfar.errors import NearfarWarning
from nearfar.runtime.jit import _closure, by_record, fingerprint, kernel
from nearfar.runtime.references import refer

SCRIPT = """
from nearfar.runtime.counter import Purpose, stream
from nearfar.method.proposal import alias_table, draw_at
import numpy as np
table = alias_table(np.arange(1.0, 1001.0))
print([draw_at(table, stream(0, Purpose.NEGATIVE), i, 0) for i in range(5)],
      sum(draw_at.stats.cache_hits.values()))
"""


@pytest.mark.full  # long
def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path):
    """The numba cache looks at a kernel's own file only; `draw_at` calls into another."""
    shutil.copytree(
        Path(nearfar.__file__).parent,
        tmp_path / "nearfar",
        ignore=shutil.ignore_patterns("__pycache__"),
    )

    def drawn():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.strip().rsplit(" ", 1)

    first, again = drawn(), drawn()
    assert first == [again[0], "0"]
    assert again[1] == "1", "the second process did not use the compiled kernel"
    counter = tmp_path / "nearfar" / "runtime" / "counter.py"
    counter.write_text(counter.read_text().replace("0x94D049BB133111EB", "0x94D049BB133111EF"))
    changed = drawn()
    assert changed[0] != first[0]
    assert changed[1] == "0"


def kernels_of(tree):
    decorators = {"kernel", "inlined", "reduction"}
    for node in ast.walk(tree):
        marks = {getattr(mark, "id", None) for mark in getattr(node, "decorator_list", ())}
        if marks & decorators:
            yield node


def names_used(function):
    """Give the names in the body of a function; its annotations are nothing to the compiler."""
    body = ast.Module(function.body, [])
    return {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}


def is_hashed(path):
    return "nearfar.runtime.jit" in path.read_text() or "numba" in path.read_text()


def test_what_a_kernel_uses_is_in_a_module_whose_source_is_hashed():
    root, checked = Path(nearfar.__file__).parent, 0
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        used = set().union(*map(names_used, kernels_of(tree)))
        assert not used or is_hashed(path), path
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearfar"):
                for name in {name.asname or name.name for name in node.names} & used:
                    folder = root.joinpath(*node.module.split(".")[1:])
                    owner = folder / f"{name}.py" if folder.is_dir() else folder.with_suffix(".py")
                    assert is_hashed(owner), f"{path.name}: {name} of {node.module}"
                    checked += 1
    assert checked > 50


def test_without_a_folder_for_the_cache_kernels_still_compile(monkeypatch):
    def nowhere(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(nearfar.runtime.jit, "numba", SimpleNamespace(njit=nowhere))
    monkeypatch.setattr(nearfar.runtime.jit, "_uncached", [])
    with pytest.warns(NearfarWarning, match=r"no locator available.* NUMBA_CACHE_DIR") as said:
        double = kernel(lambda x: 2 * x)
    assert [one.filename for one in said] == [__file__]
    assert double(21) == 42


EVERY_KERNEL = """
import gc
import warnings
warnings.simplefilter("always")
import nearfar.cli, nearfar.serve, nearfar.engine.cpu.cpu_engine
from nearfar.runtime.jit import Kernel
print(sum(isinstance(one, Kernel) for one in gc.get_objects()))
"""


def test_a_process_warns_once_that_nothing_can_be_cached(tmp_path):
    """The home and the places beside the sources are files: no user can create a folder there.

    (The superuser, who runs some tests, can write to every folder.)
    """
    package = shutil.copytree(
        Path(nearfar.__file__).parent,
        tmp_path / "nearfar",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__pycache__").touch()
    (tmp_path / "home").touch()
    gone = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    environment |= {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-c", EVERY_KERNEL],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(run.stdout) > 50
    assert run.stderr.count("NearfarWarning") == 1, run.stderr
    assert run.stderr.count("NUMBA_CACHE_DIR") == 1


def test_a_cache_that_can_no_longer_be_written_is_told_once(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(nearfar.runtime.jit, "_uncached", [])
    doubles = [kernel(lambda x: 2 * x), kernel(lambda x: x + x)]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    with pytest.warns(NearfarWarning, match="NUMBA_CACHE_DIR") as said:
        assert [double(21) for double in doubles] == [42, 42]
    assert len(said) == 1
    assert [double(2.5) for double in doubles] == [5.0, 5.0]


def test_a_kernel_is_the_same_in_python_and_in_another_kernel():
    @kernel
    def double(x):
        return 2 * x

    @kernel
    def quadruple(x):
        return double(double(x))

    assert quadruple(3) == 12
    assert double(3) == 6
    assert quadruple.signatures == double.signatures  # as a piece, it has none in Python
    assert len(double.piece.overloads) == 1


def test_constants_and_short_integers_are_the_same_type_to_a_kernel():
    @kernel
    def double(x):
        return 2 * x

    @kernel
    def several(x):
        return double(1) + double(x) + double(np.int32(x)) + double(True)

    assert several(3) == 2 + 6 + 6 + 2
    assert len(double.piece.overloads) == 2  # int64 and bool


class Circle(NamedTuple):
    radius: float


class Square(NamedTuple):
    side: float


def test_a_kernel_is_chosen_by_its_record_and_the_others_are_not_compiled():
    @kernel
    def of_circle(shape, factor):
        return factor * 3.0 * shape.radius

    @kernel
    def of_square(shape, factor):
        return factor * 4.0 * shape.side

    @kernel
    def of_nothing(shape, factor):
        return 0.0

    length = by_record({Circle: of_circle, Square: of_square, NoneType: of_nothing})

    @kernel
    def measured(shape):
        return length(shape, 2.0)

    assert measured(Square(1.0)) == 8.0
    assert len(of_square.piece.overloads) == 1
    assert not of_circle.piece.overloads
    assert measured(Circle(1.0)) == 6.0
    assert measured(None) == 0.0
    assert length(Circle(1.0), 1.0) == 3.0
    with pytest.raises(KeyError):
        length(7, 1.0)


class Inside(NamedTuple):
    numbers: np.ndarray
    factor: float


class Outside(NamedTuple):
    inside: Inside
    there: bool


def test_a_reference_gives_the_fields_of_its_record():
    @kernel
    def total(outside):
        inside = outside.inside
        found = 0.0
        for i in range(inside.numbers.shape[0]):
            found += inside.numbers[i] * inside.factor
            inside.numbers[i] = 0.0
        return found if outside.there else -1.0

    @kernel
    def of(outside):
        return total(refer(outside))

    numbers = np.arange(4.0)
    assert of(Outside(Inside(numbers, 2.0), True)) == 12.0
    assert not numbers.any()
    assert of(Outside(Inside(numbers, 2.0), False)) == -1.0


def test_a_fingerprint_is_of_what_the_kernels_of_a_module_use():
    """An edit elsewhere compiles nothing."""
    assert fingerprint("nearfar.search.heap") != fingerprint("nearfar.engine.cpu.steps")
    used = _closure("nearfar.engine.cpu.steps")
    assert {"nearfar.engine.cpu.rows", "nearfar.runtime.counter"} <= used
    assert not {name for name in used if name.startswith(("nearfar.search", "nearfar.training"))}
    assert "nearfar.method.loss" not in used

"""Compiled code is never older than the sources it was made from."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest

import nearfar.runtime.jit
from nearfar.errors import NearfarWarning
from nearfar.runtime.jit import inner, kernel

SCRIPT = """
from nearfar.runtime.counter import Purpose, stream
from nearfar.method.proposal import alias_table, draw_at
import numpy as np
table = alias_table(np.arange(1.0, 1001.0))
print([draw_at(table, stream(0, Purpose.NEGATIVE), i, 0) for i in range(5)],
      sum(draw_at.stats.cache_hits.values()))
"""


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
    decorators = {"kernel", "inlined", "inner", "reduction"}
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
    def nowhere(cache, **options):
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(nearfar.runtime.jit, "numba", SimpleNamespace(njit=nowhere))
    with pytest.warns(NearfarWarning, match=r"no locator available.* NUMBA_CACHE_DIR") as said:
        double = kernel(lambda x: 2 * x)
    assert [one.filename for one in said] == [__file__]
    assert double(21) == 42


def test_a_kernel_for_other_kernels_refuses_python():
    @inner
    def double(x):
        return 2 * x

    @kernel
    def quadruple(x):
        return double(double(x))

    assert quadruple(3) == 12
    with pytest.raises(TypeError, match="double is for other kernels only"):
        double(3)

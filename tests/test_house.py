"""The house: names that are there once, and what is imported when. The floors: `lint-imports`."""

import ast
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

import nearfar

ROOT = Path(nearfar.__file__).parent


def test_every_file_has_a_name_of_its_own():
    names = Counter(path.stem for path in ROOT.rglob("*.py") if path.stem != "__init__")
    folders = {path.name for path in ROOT.rglob("*") if (path / "__init__.py").is_file()}
    assert [name for name, n in names.items() if n > 1 or name in folders] == []


def test_every_class_has_a_name_of_its_own():
    names = Counter(
        node.name
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, n in names.items() if n > 1] == []


def test_types_of_arrays_are_declared_once():
    for path in set(ROOT.rglob("*.py")) - {ROOT / "runtime" / "arrays.py"}:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and "NDArray" in ast.unparse(node.value):
                raise AssertionError(
                    f"{path.name}: {ast.unparse(node)} belongs into runtime.arrays"
                )


PARTS = {"Uniform", "Popularity", "TwoStage", "Shared", "SGD", "Adagrad", "Adam"}


def test_nothing_asks_what_a_part_is():
    """A part says what it needs; only `options` compares it with the set it is chosen from."""
    for path in set(ROOT.rglob("*.py")) - {ROOT / "method" / "options.py"}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "getattr"}:
                said = ast.unparse(node)
                names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                assert not names & PARTS, f"{path.name}: {said}"
                assert "getattr" not in said or not names & {"sampler", "optimiser"}, said


def test_public_names_come_when_they_are_asked_for():
    assert sorted(nearfar._OWNER) == sorted(nearfar.__all__)
    assert set(nearfar._OWNER) <= set(dir(nearfar))
    for name in nearfar.__all__:
        assert getattr(nearfar, name) is not None
    with pytest.raises(AttributeError, match="module 'nearfar' has no attribute 'Intractions'"):
        _ = nearfar.Intractions


def test_public_names_of_type_checkers_are_the_same():
    (block,) = [node for node in ast.parse((ROOT / "__init__.py").read_text()).body
                if isinstance(node, ast.If)]  # fmt: skip
    for node in block.body:
        owner = node.module.removeprefix("nearfar").removeprefix(".")
        names = {alias.name for alias in node.names}
        assert names == set(nearfar._OWNERS[owner]), owner


def test_public_names_of_experiments_come_when_they_are_asked_for():
    experiment = nearfar.experiment
    assert sorted(experiment._OWNER) == experiment.__all__
    assert set(experiment.__all__) <= set(dir(experiment))
    (block,) = [node for node in ast.parse((ROOT / "experiment" / "__init__.py").read_text()).body
                if isinstance(node, ast.If)]  # fmt: skip
    for node in block.body:
        owner = node.module.removeprefix("nearfar.")
        for alias in node.names:
            assert experiment._OWNER[alias.name] == owner
            assert getattr(experiment, alias.name).__name__.endswith(alias.name)
    with pytest.raises(AttributeError, match=r"'nearfar.experiment' has no attribute 'Gird'"):
        _ = experiment.Gird
    run("import sys, nearfar.experiment; assert 'scipy' not in sys.modules")


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_none_of_it():
    run("import sys, nearfar; assert not [m for m in sys.modules if m.startswith('nearfar.')]")


COMPUTES = [
    "data.split",
    "engine",
    "engine.cpu.cpu_engine",
    "engine.reference",
    "evaluation.metrics",
    "runtime.devices",
    pytest.param(
        "search.device_search",
        marks=pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed"),
    ),
    "search.neighbours",
]


@pytest.mark.parametrize("room", COMPUTES)
def test_what_computes_needs_neither_tables_nor_the_command_line(room):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['polars', 'rich', 'typer']))"
    run(f"{blocked}; import nearfar.{room}")


def test_the_library_and_the_command_line_need_no_torch():
    blocked = "import sys; sys.modules['torch'] = None"
    run(f"{blocked}; import nearfar.cli; [getattr(nearfar, name) for name in nearfar.__all__]")

"""The order of the rooms: a module imports only those above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nearfar

ROOT = Path(nearfar.__file__).parent

ORDER = [
    "errors",
    "extras",
    "checks",
    "progress",
    "jit",
    "counter",
    "geometry",
    "threads",
    "devices",
    "store",
    "id_values",
    "ids",
    "pairs",
    "rules",
    "readers",
    "tables",
    "interactions",
    "datasets",
    "prepare",
    "split",
    "sampling",
    "objective",
    "optimiser",
    "options",
    "heap",
    "exact",
    "engine",
    "draws",
    "watch",
    "neighbours",
    "lists",
    "probing",
    "keys",
    "ranking",
    "metrics",
    "figures",
    "evaluation",
    "baselines",
    "schedule",
    "checkpoint",
    "training",
    "folding",
    "growing",
    "card",
    "projection",
    "fitted",
    "model",
    "approximate",
    "export",
    "batch",
    "presets",
    "experiment",
    "demo",
    "serve",
    "cli",
]

INSIDE_ENGINE = [
    "team",
    "prefetch",
    "problem",
    "plan",
    "choose",
    "recipe",
    "soft",
    "compute",
    "shared",
    "buffers",
    "steps",
    "reference",
    "cpu",
    "gpu",
]

INSIDE_GPU = [
    "words",
    "plan",
    "memory",
    "recipe",
    "points",
    "eager",
    "room",
    "drawing",
    "kernels",
    "moving",
    "launch",
    "parts",
    "engine",
]


def imports(path):
    """Modules of nearfar that a file imports, as dotted names below the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nearfar":
            below = node.module.split(".")[1:]
            if below:
                yield ".".join(below)
            else:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name[8:] for a in node.names if a.name.startswith("nearfar."))


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_module_has_its_room():
    rooms = {room(p) for p in ROOT.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == set(ORDER)


def test_a_module_imports_only_those_above_it():
    for path in ROOT.rglob("*.py"):
        if path.name in ("__init__.py", "__main__.py") and path.parent == ROOT:
            continue
        for target in imports(path):
            first = target.split(".")[0]
            if first.startswith("__"):  # the version
                continue
            assert first in ORDER, (path, target)
            if first != room(path):
                above = ORDER.index(first) < ORDER.index(room(path))
                assert above, f"{path.name} imports {target}, which is below it"


def test_the_engines_rooms_are_in_order_too():
    for folder, order in (("engine", INSIDE_ENGINE), ("engine/gpu", INSIDE_GPU)):
        inside = folder.split("/")
        names = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
        assert names == set(order) - {"gpu"}
        for path in (ROOT / folder).glob("*.py"):
            for target in imports(path):
                *above, name = target.split(".")[: len(inside) + 1]
                if above == inside and name in order and path.stem != "__init__":
                    assert order.index(name) < order.index(path.stem), path


def test_public_names_come_when_they_are_asked_for():
    lazy = {*nearfar._MODULES, *nearfar._OWNER}
    assert sorted(lazy) == sorted(nearfar.__all__)
    assert lazy <= set(dir(nearfar))
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
        assert names == set(nearfar._OWNERS[owner] if owner else nearfar._MODULES), owner


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_none_of_it():
    run("import sys, nearfar; assert not [m for m in sys.modules if m.startswith('nearfar.')]")


COMPUTES = [
    "devices",
    "engine",
    "engine.cpu",
    "engine.reference",
    "metrics",
    "neighbours",
    "ranking",
    "split",
]


@pytest.mark.parametrize("room", COMPUTES)
def test_what_computes_needs_neither_tables_nor_the_command_line(room):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['polars', 'rich', 'typer']))"
    run(f"{blocked}; import nearfar.{room}")


def test_the_library_and_the_command_line_need_no_torch():
    blocked = "import sys; sys.modules['torch'] = None"
    run(f"{blocked}; import nearfar.cli; [getattr(nearfar, name) for name in nearfar.__all__]")

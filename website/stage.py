"""Lay out the sources of the site: pages with links of the site, the reference, the navigation.

Sphinx reads one folder. This module writes it from ``docs/``, the pages beside it that these link
to, and `contents`. A file is written only if it changed, so that a second build is quick.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

from addresses import found, linked, place_of, public_name, targets
from contents import NAVIGATION, PARTS, REFERENCE
from docstrings import with_bars

ROOT = Path(__file__).parent.parent
REPORTS = "docs/results/*/*.md"
"""Tables of all rows, which are on the site but not in the navigation."""


def pages() -> list[str]:
    """Return the pages of the site that lie in the repository, from its root."""
    inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    return sorted(inside | {name for names in NAVIGATION.values() for name in names})


def slug(title: str) -> str:
    """Return the file name of a page of the reference.

    Examples
    --------
    >>> slug("Serving and export")
    'serving-and-export'
    """
    return title.lower().replace(", ", "-").replace(" ", "-")


def summary(name: str) -> str:
    """Return the first line of the docstring of a public name."""
    return (found(name).__doc__ or "").strip().split("\n")[0]


def members(name: str, module: ModuleType) -> list[str]:
    """Return the functions, classes and modules that a module has to document.

    Those that have a place of their own in the reference are left out, as are constants, which
    the module's docstring or source explains.
    """
    every = [one for one in vars(module) if not one.startswith("_")]
    named = getattr(module, "__all__", every)
    return [one for one in named if _documented(name, one, module)]


def _documented(name: str, one: str, module: ModuleType) -> bool:
    value = getattr(module, one)
    if isinstance(value, ModuleType):
        return hasattr(module, "__all__")
    home = f"{getattr(value, '__module__', '')}.{one}"
    if not callable(value) or not value.__doc__ or getattr(value, "__name__", None) != one:
        return False
    elsewhere = home.startswith("nearfar.errors.") and name != "nearfar.errors"
    listed = hasattr(module, "__all__") and public_name(home) == home and not elsewhere
    return listed or f"{name}.{one}" == public_name(home)


def directive(name: str) -> str:
    """Return what documents a public name, in reStructuredText.

    A function or a class is documented itself, a module with all its public functions and classes.
    """
    value = found(name)
    if isinstance(value, type):
        return f".. autoclass:: {name}\n   :members:\n"
    if name == "nearfar.prepare":  # a package that can be called
        return ".. autofunction:: nearfar.prepare.prepare\n"
    if isinstance(value, ModuleType):
        return module_part(name)
    return f".. autofunction:: {name}\n"


def checked_module(name: str) -> ModuleType:
    """Return the module of a name."""
    value = found(name)
    if not isinstance(value, ModuleType):
        raise TypeError(f"{name} is no module")
    return value


def reference_page(title: str, about: str, names: tuple[str, ...]) -> str:
    """Return a page of the reference."""
    rows = "".join(
        f"   * - :py:obj:`{name.rpartition('.')[2]} <{public_name(name)}>`\n"
        f"     - {next(with_bars([summary(name)]))}\n"
        for name in names
    )
    table = (
        f".. list-table::\n   :class: names\n   :widths: 1 3\n\n{rows}" if len(names) > 1 else ""
    )
    documented = "\n".join(map(directive, names))
    return f"{title}\n{'=' * len(title)}\n\n{about}\n\n{table}\n{documented}"


def parts_page(title: str, modules: tuple[str, ...]) -> str:
    """Return a page on modules: what they say of themselves, and what no other page documents."""
    return "\n".join([title, "=" * len(title), "", *map(module_part, modules)])


def module_part(name: str) -> str:
    """Return what documents a module and its functions and classes, in reStructuredText."""
    first = f"{name}\n{'-' * len(name)}\n\n.. automodule:: {name}\n   :no-members:\n"
    named = [f"{name}.{one}" for one in members(name, checked_module(name))]
    return "\n".join([first, *map(directive, named)])


def toctree(caption: str, documents: list[str], depth: int = 1) -> str:
    """Return a part of the navigation, in MyST."""
    listed = "\n".join(documents)
    return f"```{{toctree}}\n:caption: {caption}\n:hidden:\n:maxdepth: {depth}\n\n{listed}\n```\n"


def navigation() -> str:
    """Return the navigation: the pages of the repository, then those of the reference."""
    written = []
    for caption, names in NAVIGATION.items():
        written.append(toctree(caption, [f"/{place_of(name)}" for name in names]))
        if caption == "Explanation":
            reference = [f"/reference/{slug(title)}" for title in (*REFERENCE, *PARTS)]
            written.append(toctree("Reference", reference, 2))
    return "\n".join(written)


def write(path: Path, text: str) -> None:
    """Write a file unless it has this text already."""
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def copy(source: Path, path: Path) -> None:
    """Copy a file unless it is there already."""
    if not path.is_file() or path.read_bytes() != source.read_bytes():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)


def texts() -> dict[str, str]:
    """Return the text of each staged page, by its place: those of the repository, the reference."""
    staged = {place_of(name): page(name) for name in pages() if name.endswith(".md")}
    for title, (about, names) in REFERENCE.items():
        staged[f"reference/{slug(title)}.rst"] = reference_page(title, about, names)
    for title, modules in PARTS.items():
        staged[f"reference/{slug(title)}.rst"] = parts_page(title, modules)
    return staged


def page(name: str) -> str:
    """Return a page of the repository as it is on the site."""
    text = linked((ROOT / name).read_text(), name)
    if place_of(name) == "index.md":
        return f"{text}\n{navigation()}"
    if (ROOT / name).match(REPORTS):  # a page links to it
        return f"---\norphan: true\n---\n{text}"
    return text


def files() -> list[str]:
    """Return the files that are copied: notebooks, and what pages show or link to."""
    named = set(pages())
    for name in pages():
        if name.endswith(".md"):
            named |= targets((ROOT / name).read_text(), name)
    beside = [one for one in named if not one.endswith(".md") and not one.startswith("src/")]
    return sorted(one for one in beside if (ROOT / one).is_file())


def stage(folder: Path) -> None:
    """Write the sources of the site to a folder, and remove what is no longer part of it."""
    kept = set()
    for place, text in texts().items():
        write(folder / place, text)
        kept.add(folder / place)
    for name in files():
        copy(ROOT / name, folder / place_of(name))
        kept.add(folder / place_of(name))
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()

"""Where each file of the repository lies on the site, and links between them.

The pages of ``docs/`` are written for a reader of the repository: their links lead to files.
On the site a link to a module leads to its reference, and a link to a page beside ``docs/``
(benchmarks, changelog) to a copy of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, ModuleType

import nearfar
from contents import PARTS, REFERENCE

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
NAME = re.compile(r"(?<![`\[])`((?:nf|nearfar)(?:\.\w+)+)`(?!`)")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$|^(?: {4,}|\t)[^\n]*$", re.DOTALL | re.MULTILINE)


def place_of(path: str) -> str:
    """Return the place on the site of a file of the repository.

    Examples
    --------
    >>> place_of("docs/README.md"), place_of("docs/cluster.md"), place_of("CHANGELOG.md")
    ('index.md', 'cluster.md', 'CHANGELOG.md')
    """
    if path == "docs/README.md":
        return "index.md"
    return path.removeprefix("docs/")


def found(name: str) -> object:
    """Return the object of a dotted name, or None."""
    parts = name.split(".")
    value: object = import_module(parts[0])
    for n, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            if find_spec(".".join(parts[:n])) is None:
                return None
            import_module(".".join(parts[:n]))
        value = getattr(value, part)
    return value


def public_name(name: str) -> str:
    """Return the name under which the reference has an object.

    Examples
    --------
    >>> public_name("nearfar.method.loss.Triplet.term"), public_name("nearfar.data.split.ratio")
    ('nearfar.Triplet.term', 'nearfar.split.ratio')
    >>> public_name("nearfar.method.loss"), public_name("nearfar.prepare")
    ('nearfar.method.loss', 'nearfar.prepare.prepare')
    """
    if name in {"nearfar.prepare", "nearfar.prepare.prepare"}:
        return "nearfar.prepare.prepare"
    for owner, names in nearfar._OWNERS.items():
        for one in names:
            own = f"nearfar.{owner}.{one}".replace("..", ".")
            if name == own or name.startswith(f"{own}."):
                return f"nearfar.{one}{name.removeprefix(own)}"
    return name


def defined_name(name: str) -> str:
    """Return the public name of an object where it is defined, if it is imported elsewhere.

    Examples
    --------
    >>> defined_name("nearfar.method.sampling.popularity_weight")
    'nearfar.method.proposal.popularity_weight'
    >>> defined_name("nearfar.experiment.paired")
    'nearfar.experiment.paired'
    """
    documented = {one for _, names in REFERENCE.values() for one in names}
    if public_name(name) != name or name.rpartition(".")[0] in documented:
        return public_name(name)
    value = found(name)
    home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    at_home = isinstance(value, FunctionType | type) and home and own
    return public_name(f"{home}.{own}") if at_home else name


def in_reference(name: str) -> bool:
    """Return whether a page of the reference documents a name or what it belongs to."""
    modules = {name for names in PARTS.values() for name in names}
    public = {name for _, names in REFERENCE.values() for name in names}
    owner = name.rpartition(".")[0]
    return name in modules | public or any(
        owner == one or owner.startswith(f"{one}.") for one in modules | public
    )


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change a text of Markdown, but not its blocks of code."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def role(kind: str, text: str, target: str) -> str:
    """Return a reference to a documented name in MyST."""
    return f"{{py:{kind}}}`{text.strip('`')} <{target}>`"


def linked(text: str, path: str) -> str:
    """Return the Markdown of a file with its links as they are on the site.

    Parameters
    ----------
    text : str
        The Markdown.
    path : str
        The file, from the root of the repository.
    """

    def resolved(target: str) -> tuple[str, str]:
        file, _, anchor = target.partition("#")
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), file)) if file else path
        return full, f"#{anchor}" if anchor else ""

    def moved(target: str) -> str:
        full, anchor = resolved(target)
        return posixpath.relpath(place_of(full), posixpath.dirname(place_of(path)) or ".") + anchor

    def link(one: re.Match[str]) -> str:
        label, target = one.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return one[0]
        full, _ = resolved(target)
        if full.startswith("src/"):
            module = full.removeprefix("src/").removesuffix(".py").replace("/", ".")
            name = label.strip("`").replace("nf.", "nearfar.")
            named = defined_name(name if name.startswith("nearfar.") else module)
            documented = isinstance(found(named), FunctionType | type | ModuleType) or (
                isinstance(found(named.rpartition(".")[0]), type)
            )
            return role("obj", label, named if documented else module)
        return f"[{label}]({moved(target)})"

    def image(one: re.Match[str]) -> str:
        outside = "://" in one[2]
        return one[0] if outside else f"![{one[1]}]({moved(one[2])})"

    def name(one: re.Match[str]) -> str:
        full = re.sub(r"^nf\b", "nearfar", one[1])
        if not in_reference(full) and not in_reference(public_name(full)):
            return one[0]  # it may need what is not installed
        return role("obj", one[1], defined_name(full))

    def change(part: str) -> str:
        pieces, end = [], 0
        for one in LINK.finditer(part):  # a name inside a link stays text
            pieces += [NAME.sub(name, part[end : one.start()]), link(one)]
            end = one.end()
        return IMAGE.sub(image, "".join([*pieces, NAME.sub(name, part[end:])]))

    return outside_code(text, change)


def targets(text: str, path: str) -> set[str]:
    """Return the files of the repository that the Markdown of a file links to or shows."""
    found: set[str] = set()

    def collect(part: str) -> str:
        for pattern in (LINK, IMAGE):
            for one in pattern.finditer(part):
                file = one[2].partition("#")[0]
                if file and "://" not in file and not file.startswith("mailto:"):
                    found.add(posixpath.normpath(posixpath.join(posixpath.dirname(path), file)))
        return part

    outside_code(text, collect)
    return found

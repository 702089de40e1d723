"""Command line flags generated from dataclasses of options.

A field becomes a flag: its name is that of the field, its type is the annotation, its help is the
string under the field, and its default is shown. No option is named in this module, so a new field,
or a new class in `nearfar.method.options.STRATEGIES`, is a new flag without a change here.

A part with a choice of classes (``sampler``) gets a flag with their names and one flag for each of
their fields; classes can share a flag (``--beta``). A part that can be None (``spread_out``) gets
one flag for its first field, where 0 means off, and ``--part-field`` for the others.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from enum import Enum
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Strategies = Mapping[str, tuple[type[Any], ...]]


@dataclass(frozen=True)
class Flag:
    """One flag, and the fields it sets."""

    name: str
    """The name without dashes: ``learning-rate``."""
    kind: Any
    """The type of its value, for typer."""
    help: str
    default: str
    """The default as shown; empty if there is none."""
    part: str = ""
    """The field of the options that holds the object; empty for a field of the options itself."""
    field: str = ""
    """The field it sets; empty for the flag that chooses the class of a part."""
    owners: tuple[type[Any], ...] = ()
    """The classes of the part that have the field."""

    @property
    def key(self) -> str:
        """The name of its parameter in a command."""
        return self.name.replace("-", "_")


def kebab(name: str) -> str:
    """Return the name of a class or a field in the command line's spelling.

    Examples
    --------
    >>> kebab("TwoStage"), kebab("SGD"), kebab("learning_rate")
    ('two-stage', 'sgd', 'learning-rate')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().replace("_", "-")


def attribute_docs(cls: type[Any]) -> dict[str, str]:
    """Read the first paragraph of the string under each field of a class, as plain text."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # no source code, as in a frozen application
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, after in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            text = inspect.cleandoc(after.value.value).split("\n\n")[0]
            docs[field.target.id] = " ".join(text.split()).replace("``", "`")
    return docs


def flags_of(
    cls: type[Any],
    strategies: Strategies | None = None,
    base: Any = None,
    *,
    without: Iterable[str] = (),
) -> tuple[Flag, ...]:
    """Return the flags of a dataclass of options.

    Parameters
    ----------
    cls : type
        A frozen dataclass whose fields all have defaults.
    strategies : mapping of str to tuple of types, optional
        The fields whose value is an object, and the closed set of its classes.
    base : dataclass instance, optional
        The options whose values are shown as defaults; by default those of `cls`.
    without : iterable of str
        Fields that have no flag.

    Returns
    -------
    tuple of Flag
        In the order of the fields.
    """
    parts = strategies or {}
    flags: list[Flag] = []
    for field in (one for one in fields(cls) if one.name not in without):
        if field.name in parts:
            flags += _part_flags(cls, field.name, parts[field.name], _default(field))
        else:
            flag = _plain_flag(cls, field)
            shown = flag.default if base is None else _shown(getattr(base, field.name))
            flags.append(replace(flag, default=shown))
    return _with_distinct_names(flags)


def _plain_flag(cls: type[Any], field: Any, **more: Any) -> Flag:
    kind = _value_type(cls, field.name)
    text = attribute_docs(cls).get(field.name, "")
    shown = _shown(_default(field))
    return Flag(kebab(field.name), kind, text, shown, field=field.name, **more)


def _part_flags(
    cls: type[Any], part: str, kinds: tuple[type[Any], ...], default: Any
) -> list[Flag]:
    owners = tuple(kind for kind in kinds if kind is not type(None))
    if len(owners) < len(kinds):
        return _optional_flags(cls, part, owners[0], default)
    flags = [_merged(part, name, owners, default) for name in _field_names(owners)]
    if len(owners) == 1:
        return flags
    names = {kebab(kind.__name__): kebab(kind.__name__) for kind in owners}
    text = attribute_docs(cls).get(part, "")
    chosen = Flag(kebab(part), _closed(part, names), text, kebab(type(default).__name__), part)
    return [chosen, *flags]


def _optional_flags(cls: type[Any], part: str, owner: type[Any], default: Any) -> list[Flag]:
    """Return ``--part VALUE`` for the first field of the class, ``--part-field`` for others."""
    text = attribute_docs(cls).get(part, "")
    flags: list[Flag] = []
    for field in fields(owner):
        flag = _plain_flag(owner, field, part=part, owners=(owner,))
        if flags:
            flag = replace(flag, name=f"{kebab(part)}-{flag.name}")
        else:
            of = f"The {field.name}: {flag.help}" if flag.help else f"Sets its {field.name}."
            shown = "off" if default is None else _shown(getattr(default, field.name))
            flag = replace(flag, name=kebab(part), help=f"{text} {of} 0 is off.", default=shown)
        flags.append(flag)
    return flags


def _field_names(owners: Iterable[type[Any]]) -> list[str]:
    return list(dict.fromkeys(field.name for owner in owners for field in fields(owner)))


def _merged(part: str, name: str, classes: tuple[type[Any], ...], default: Any) -> Flag:
    """Return the single flag for a field that several classes of a part can have.

    For the class of `default`, the value of `default` is shown.
    """
    having = tuple(owner for owner in classes if name in _field_names([owner]))
    each = []
    for owner in having:
        field = next(field for field in fields(owner) if field.name == name)
        flag = _plain_flag(owner, field, part=part)
        if type(default) is owner:
            flag = replace(flag, default=_shown(getattr(default, name)))
        each.append(flag)
    prefix = ""
    if len(having) < len(classes):
        prefix = f"({kebab(part)} {listed(having)}) "
    texts = list(dict.fromkeys(flag.help for flag in each))
    defaults = list(dict.fromkeys(flag.default for flag in each))
    shown = defaults[0]
    if len(defaults) > 1:
        pairs = zip(having, each, strict=True)
        shown = ", ".join(f"{flag.default} for {kebab(owner.__name__)}" for owner, flag in pairs)
    return replace(each[0], help=prefix + " Or: ".join(texts), default=shown, owners=having)


def _with_distinct_names(flags: list[Flag]) -> tuple[Flag, ...]:
    """Prefix names of fields that several parts have with the part."""
    names = [flag.name for flag in flags]
    return tuple(
        replace(flag, name=f"{kebab(flag.part)}-{flag.name}")
        if names.count(flag.name) > 1 and flag.part and flag.field
        else flag
        for flag in flags
    )


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "" if default is None else str(default)


def _value_type(cls: type[Any], name: str) -> Any:
    """Return the type of a field for typer: without None, a Literal as an Enum."""
    hint = get_type_hints(cls)[name]
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"`{cls.__name__}.{name}` must be of one type for a flag; got {hint}.")
        hint = kinds[0]
    if get_origin(hint) is Literal:
        return _closed(name, {str(value): str(value) for value in get_args(hint)})
    return hint


def _closed(name: str, values: Mapping[str, str]) -> Any:
    return Enum(name, values, type=str)


def listed(kinds: Iterable[type[Any]]) -> str:
    """Return a list of classes in words: ``popularity or two-stage``."""
    return " or ".join(kebab(kind.__name__) for kind in kinds)

"""Flags of a command, and options built from the flags that are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo

from nearfar.cli.flags import Flag, Strategies, kebab, listed
from nearfar.runtime.checks import local_path


class FlagError(Exception):
    """An invalid combination of flags; the command line shows it as a usage error."""


def names_of(command: Callable[..., Any]) -> dict[str, str]:
    """Return how the parameters of a command are written on the command line, for messages."""
    named = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        given = getattr(parameter.annotation, "__metadata__", ())
        argument = next((one for one in given if isinstance(one, ArgumentInfo)), None)
        named[name] = f"--{kebab(name)}" if argument is None else str(argument.metavar or name)
    return named


def local(value: Any, name: str) -> Any:
    """Return a path, or a list of paths, with ``~`` expanded; any other value unchanged.

    Raises
    ------
    OptionError
        A path is an address, such as ``s3://bucket/model``.
    """
    if isinstance(value, list):
        return [local(one, name) for one in value]
    return local_path(value, name) if isinstance(value, Path) else value


def with_flags(
    flags: Iterable[Flag], *, into: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add flags to a typer command, which receives the given ones as one dict.

    Parameters
    ----------
    flags : iterable of Flag
    into : str
        The keyword parameter of the command that takes the dict, from `Flag.key` to the value.
    """
    all_flags = tuple(flags)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def with_them(**values: Any) -> Any:
            given = {flag.key: values.pop(flag.key) for flag in all_flags}
            values[into] = {
                key: value.value if isinstance(value, Enum) else value
                for key, value in given.items()
                if value is not None
            }
            return command(**values)

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [parameter for parameter in own if parameter.name != into]
        parameters = [*kept, *(_parameter(flag) for flag in all_flags)]
        with_them.__name__, with_them.__doc__ = command.__name__, command.__doc__
        with_them.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_them.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_them

    return decorate


def _parameter(flag: Flag) -> inspect.Parameter:
    words = f"--{flag.name}/--no-{flag.name}" if flag.kind is bool else f"--{flag.name}"
    text = f"{flag.help} [default: {flag.default}]" if flag.default else flag.help
    option = typer.Option(words, help=text, show_default=False)
    optional: Any = flag.kind | None
    kind: Any = Annotated[optional, option]
    return inspect.Parameter(flag.key, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=kind)  # fmt: skip


def build(
    base: Any, flags: Iterable[Flag], given: Mapping[str, Any], strategies: Strategies | None = None
) -> Any:
    """Return options with the given flags applied.

    Parameters
    ----------
    base : dataclass instance
        The options to start from.
    flags : iterable of Flag
        The result of `flags_of` for the class of `base`.
    given : mapping
        From `Flag.key` to the value.
    strategies : mapping, optional
        As in `flags_of`.

    Returns
    -------
    dataclass instance

    Raises
    ------
    FlagError
        A flag belongs to another class than the chosen one.
    OptionError
        A value is out of range.
    """
    used = [flag for flag in flags if flag.key in given]
    changes = {flag.field: given[flag.key] for flag in used if not flag.part}
    for part, kinds in (strategies or {}).items():
        of_part = [flag for flag in used if flag.part == part]
        if of_part:
            changes[part] = _build_part(part, kinds, getattr(base, part), of_part, given)
    return replace(base, **changes)


def _build_part(
    part: str,
    kinds: tuple[type[Any], ...],
    current: Any,
    used: list[Flag],
    given: Mapping[str, Any],
) -> Any:
    choosing = [flag for flag in used if not flag.field]
    setting = {flag: given[flag.key] for flag in used if flag.field}
    if choosing:
        wanted = next(k for k in kinds if kebab(k.__name__) == given[choosing[0].key])
        current = current if isinstance(current, wanted) else wanted()
    if type(None) in kinds:
        switch = next((flag for flag in setting if flag.name == kebab(part)), None)
        if switch is not None and setting[switch] == 0:
            current = None
            del setting[switch]
        elif switch is not None and current is None:
            current = switch.owners[0]()
    for flag in setting:
        if not isinstance(current, flag.owners):
            raise FlagError(_misplaced(flag, part, current))
    if not is_dataclass(current) or not setting:
        return current
    return replace(current, **{flag.field: value for flag, value in setting.items()})  # type: ignore[type-var]


def _misplaced(flag: Flag, part: str, current: Any) -> str:
    name = kebab(part)
    if current is None:
        return f"`--{flag.name}` belongs to --{name}, which is off; give --{name} too."
    owners, chosen = listed(flag.owners), kebab(type(current).__name__)
    return f"`--{flag.name}` belongs to --{name} {owners}; the {name} is {chosen}."

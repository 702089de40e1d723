"""The hyper-parameters of a model, as opposed to the settings of a run.

`Options` is frozen, validated on creation, saved with the model, and the source of the command
line's flags. Parts with their own parameters are objects: ``sampler=TwoStage(candidates=500)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from nearfar.errors import OptionError
from nearfar.method.co_occurrence import CoOccurrence
from nearfar.method.geometry import GEOMETRIES, Geometry
from nearfar.method.hybrid import ENCODERS, Hybrid, Module, NotGiven
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging, Optimiser
from nearfar.method.prior import Prior
from nearfar.method.sampling import Popularity, Sampler, Shared, TwoStage, Uniform
from nearfar.runtime.checks import an_instance, one_of, said, set_fields, whole

STRATEGIES: dict[str, tuple[type[Any], ...]] = {
    "sampler": (Uniform, Popularity, TwoStage, Shared),
    "triplet": (Triplet,),
    "spread_out": (SpreadOut, type(None)),
    "decorrelate": (Decorrelate, type(None)),
    "optimiser": (Adam, Adagrad, SGD),
    "averaging": (Averaging, type(None)),
    "prior": (Prior, type(None)),
    "neighbours": (CoOccurrence, type(None)),
    "items": (Hybrid, type(None)),
    "users": (Hybrid, type(None)),
}
"""The classes from which each part is chosen; `register_sampler` adds to them."""

_ADDED: dict[str, dict[str, Any]] = {
    "Options": {"prior": None, "neighbours": None, "items": None, "users": None},
    "TwoStage": {"towards": "positive", "sharpness": 1.0},
}
"""Options that older saved models lack, with the values that mean the same."""

Kind = TypeVar("Kind", bound=type[Any])


@dataclass(frozen=True)
class Options:
    """The hyper-parameters of a `CML` model and its training."""

    dim: int = 128
    """d, the dimension of the space; 2 to 4096."""
    geometry: Geometry = "sphere"
    """The set of the points: "sphere", "ball" or "free"; see `nearfar.method.geometry`."""
    sampler: Sampler = Shared()  # noqa: RUF009  # frozen, and shown in signatures
    """The sampler, which draws the negatives; see `nearfar.method.sampling`."""
    negatives: int | None = None
    """|N_ij|, negatives drawn for each pair, or with `Shared` for the whole batch. By default 5, or
    with `Shared` 512, but at most a fifth of the items that can be drawn (or 32, if that is more).
    """
    batch: int = 256
    """Pairs in each training step."""
    triplet: Triplet = Triplet(0.2, temperature=None)  # noqa: RUF009
    """The loss of a pair and its negatives."""
    spread_out: SpreadOut | None = None
    """Spread-out regularisation, or None."""
    decorrelate: Decorrelate | None = None
    """CML's covariance loss, or None."""
    optimiser: Optimiser = Adam(5e-3)  # noqa: RUF009
    """The optimiser, which turns gradients into steps."""
    averaging: Averaging | None = Averaging()  # noqa: RUF009
    """Use a mean of the points over epochs instead of the last points, or None."""
    prior: Prior | None = Prior()  # noqa: RUF009
    """The popularity prior, which makes lists more or less popular on request, or None."""
    neighbours: CoOccurrence | None = None
    """The co-occurrence term, which scores items higher that are found with the user's, or None."""
    items: Hybrid | None = None
    """How items are learned from their features as well, or None."""
    users: Hybrid | None = None
    """How users are learned from their features as well, or None."""

    def __post_init__(self) -> None:
        for name, kinds in STRATEGIES.items():
            value = getattr(self, name)
            if not isinstance(value, kinds):
                names = " or ".join(
                    "None" if k is type(None) else f"{k.__name__}(...)" for k in kinds
                )
                hint = " (the class itself: add parentheses)" if isinstance(value, type) else ""
                if name == "sampler" and hasattr(value, "draw") and not hint:
                    hint = " (register it first: nearfar.method.options.register_sampler)"
                raise OptionError(f"`{name}` must be {names}; got {said(value)}{hint}.")
        most, negatives = 100_000, self.negatives
        set_fields(
            self,
            dim=whole("dim", self.dim, 2, 4096),
            geometry=one_of("geometry", self.geometry, GEOMETRIES),
            negatives=None if negatives is None else whole("negatives", negatives, 1, most),
            batch=whole("batch", self.batch, 1, 1_000_000),
        )
        needs = self.sampler.needs
        own = 0 if needs.shared else self.negatives or needs.usual
        if self.batch * (2 + own) > 2**27:
            raise OptionError(
                f"`batch` x (`negatives` + 2), the buffer size of a step, must be at most 2^27;"
                f" got {self.batch:,} x {own + 2:,}. Use a smaller batch."
            )
        hybrid = [name for name in ("items", "users") if getattr(self, name) is not None]
        if hybrid and self.geometry != "sphere":
            raise OptionError(
                f"`{hybrid[0]}`=Hybrid(...) needs points on the sphere; got"
                f" geometry={self.geometry!r}. Use geometry='sphere'."
            )
        if self.users is not None and any(
            one is not None and isinstance(one.encoder, Module) for one in (self.users, self.items)
        ):
            raise OptionError(
                "a Module encodes items only, of a model whose users are learned from their"
                f" interactions alone; got `users`={self.users!r}. Use users=None."
            )
        encoder = None if self.items is None else self.items.encoder
        if isinstance(encoder, Module) and encoder.fresh is not None and not needs.shared:
            raise OptionError(
                f"`fresh`={encoder.fresh} is of negatives that a batch shares, and"
                f" sampler={type(self.sampler).__name__}(...) draws others. Omit it, or use"
                " Shared(...)."
            )
        if needs.shared and self.spread_out is not None:
            raise OptionError(
                "`spread_out` compares each positive item with its own negatives and is not"
                f" available with sampler={type(self.sampler).__name__}(...); got"
                f" {self.spread_out!r}. Use spread_out=None."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; see `from_dict`.

        Examples
        --------
        >>> Options.from_dict(Options(dim=8).to_dict()) == Options(dim=8)
        True
        """
        plain: dict[str, Any] = {}
        for one in fields(self):
            plain[one.name] = _plain(getattr(self, one.name))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Options:
        """Make options from the result of `to_dict`.

        Options that were added later, as the prior was, have the values that make the same model.

        Raises
        ------
        OptionError
            An option is missing or unknown, a kind is unknown, or a value is out of its range.
        """
        values = {**_ADDED["Options"], **an_instance("plain", plain, Mapping)}
        known = {field.name for field in fields(cls)}
        for what, names in (("unknown", set(values) - known), ("missing", known - set(values))):
            if names:
                raise OptionError(f"{what} option(s) {', '.join(sorted(names))}.")
        for name, kinds in STRATEGIES.items():
            value = values.get(name)
            if isinstance(value, Mapping):
                values[name] = _strategy(name, kinds, dict(value))
        return cls(**values)


def register_sampler(kind: Kind) -> Kind:
    """Register your own sampler for use in options, saved models and the command line.

    Register it before models that were trained with it are loaded, and before `nearfar.cli` is
    imported, which makes its flags from the registered classes. It can be used as a decorator.

    Parameters
    ----------
    kind : type
        A frozen dataclass that satisfies `nearfar.method.sampling.Sampler`. Its fields must be
        numbers, booleans or text and have defaults, because they are saved with a model and become
        flags; the string under a field is its help text.

    Returns
    -------
    type
        `kind`.

    Raises
    ------
    OptionError
        It is not such a class, or there is already a sampler of that name.
    """
    name = getattr(kind, "__name__", repr(kind))
    lacking = [part for part in ("needs", "proposal", "draw") if not hasattr(kind, part)]
    if lacking:
        raise OptionError(
            f"a sampler must have `needs`, `proposal` and `draw`; {name} lacks {lacking}."
        )
    frozen = is_dataclass(kind) and kind.__setattr__ is not object.__setattr__
    if not frozen or any(field.default is MISSING for field in fields(kind)):
        raise OptionError(
            f"a sampler must be a frozen dataclass whose fields have defaults; {name} is not."
        )
    if name in {known.__name__ for known in STRATEGIES["sampler"]}:
        raise OptionError(f"there is already a sampler {name!r}; choose another name.")
    STRATEGIES["sampler"] = (*STRATEGIES["sampler"], kind)
    return kind


def _plain(value: Any) -> Any:
    """Return a value for JSON; the fields of a custom sampler may be numpy's scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        if isinstance(value, Module):
            parts["build"] = value.name
        return {"kind": type(value).__name__, **parts}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _strategy(name: str, kinds: tuple[type[Any], ...], value: dict[str, Any]) -> Any:
    by_name = {kind.__name__: kind for kind in kinds}
    kind = value.pop("kind", None)
    if not isinstance(kind, str) or kind not in by_name:
        raise OptionError(f"`{name}` must be one of {', '.join(by_name)}; got {kind!r}.")
    if isinstance(part := value.get("encoder"), Mapping):
        value["encoder"] = _strategy(f"{name}.encoder", ENCODERS, dict(part))
    if kind == "Module":
        value["build"] = NotGiven(str(value.get("build")))
    try:
        value = {**_ADDED.get(kind, {}), **value}
        made = by_name[kind](**value)
        missing = {field.name for field in fields(made)} - set(value)
    except TypeError as error:
        raise OptionError(f"`{name}`: {error}.") from error
    if missing:
        raise OptionError(f"`{name}`: {', '.join(sorted(missing))} missing.")
    return made

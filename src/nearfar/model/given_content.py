"""What a model is to learn from besides interactions, as its caller gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from nearfar.data.contents import checked_contents
from nearfar.data.feature_space import FeatureSpace
from nearfar.data.features import checked_features
from nearfar.data.interactions import Interactions
from nearfar.engine.content import Content
from nearfar.engine.item_module import ItemModule
from nearfar.errors import OptionError
from nearfar.method.hybrid import Module
from nearfar.method.options import Options
from nearfar.model.encoders import SIDES, Encoders, linear_content
from nearfar.model.module_encoders import ModuleEncoders, make_item_module
from nearfar.runtime.arrays import Arrays, Float32
from nearfar.runtime.devices import resolve

AnyEncoders = Encoders | ModuleEncoders
"""What a hybrid has learned besides its points."""


class GivenContent(NamedTuple):
    """The content of a run, on the axes of its interactions; empty without hybrids."""

    content: Content | None = None
    module: ItemModule | None = None
    spaces: Mapping[str, FeatureSpace] = MappingProxyType({})
    """How features became the content, by "users" and "items"."""

    @classmethod
    def of(cls, encoders: AnyEncoders | None, device: str) -> GivenContent:
        """Return the content of a fitted model, to learn further from."""
        if encoders is None:
            return cls()
        if isinstance(encoders, Encoders):
            return cls(encoders.content, None, encoders.spaces)
        module = encoders.module
        return cls(encoders.content, module.reading(module.contents, module.places, device))

    def encoders(self, tables: Float32 | None) -> AnyEncoders | None:
        """Return what was learned, from `nearfar.engine.Engine.tables`; None without hybrids."""
        if self.content is None or tables is None:
            return None
        if self.module is not None:
            return ModuleEncoders.of(self.content, self.module, tables)
        return Encoders.of(self.content, tables, dict(self.spaces))


def given_content(
    options: Options, train: Interactions, features: dict[str, Any], seed: int, device: str
) -> GivenContent:
    """Return the content that a model is to learn from.

    Parameters
    ----------
    options : Options
    train : Interactions
        The part to learn from; vocabularies, means and frequencies are of its users and items.
    features : dict
        `Features`, `Contents` or None, by "users" and "items".
    seed : int
        A module is built under it.
    device : str
        Where a module computes.

    Raises
    ------
    OptionError
        There are features but no hybrid, or a hybrid without features, or they are of the wrong
        type for its encoder.
    """
    for side in SIDES:
        hybrid, given, name = getattr(options, side), features[side], f"{side[:-1]}_features"
        if hybrid is None and given is not None:
            raise OptionError(
                f"`{name}` was given, but the model does not learn from it: pass"
                f" {side}=nearfar.Hybrid() to CML."
            )
        if hybrid is not None and given is None:
            kind = "Contents" if isinstance(hybrid.encoder, Module) else "Features"
            raise OptionError(f"`{side}` is {hybrid!r}: fit needs `{name}`, nearfar.{kind}(...).")
    if options.items is not None and isinstance(options.items.encoder, Module):
        contents = checked_contents("item_features", features["items"])
        return GivenContent(*make_item_module(options, train, contents, seed, resolve(device)))
    spaces, matrices = {}, {}
    for side in SIDES:
        if (given := features[side]) is None:
            continue
        checked_features(f"{side[:-1]}_features", given)
        ids, counts = (
            (train.user_ids, train.user_counts)
            if side == "users"
            else (train.item_ids, train.item_counts)
        )
        gains = dict(getattr(options, side).gains)
        spaces[side] = FeatureSpace.fit(given, ids, counts > 0, gains)
        matrices[side] = spaces[side].encode(given, ids).matrix
    content = linear_content(options, train, matrices) if spaces else None
    return GivenContent(content, None, spaces)


def read_encoders(
    options: Options,
    data: Interactions,
    arrays: Arrays,
    metas: dict[str, Any],
    frames: dict[str, pl.DataFrame],
) -> AnyEncoders:
    """Read what `arrays` and `to_store` of encoders returned; refuse what does not fit together."""
    if options.items is not None and isinstance(options.items.encoder, Module):
        return ModuleEncoders.from_store(options, data, arrays, metas)
    return Encoders.from_store(options, data, arrays, metas, frames)


def with_build(options: Options, build: Callable[[int], Any]) -> Options:
    """Return options that were read from a file with the code of their module.

    Raises
    ------
    OptionError
        They have no module.
    """
    items = options.items
    if items is None or not isinstance(items.encoder, Module):
        raise OptionError(
            "`encoder` was given, but no Module encodes the items of this model; omit it."
        )
    return replace(options, items=replace(items, encoder=replace(items.encoder, build=build)))

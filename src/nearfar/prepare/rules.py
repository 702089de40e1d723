"""What counts as an interaction and who has enough of them; and the rules that the paper states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nearfar.errors import OptionError
from nearfar.runtime.checks import one_of, real, set_fields, switch, whole

Core = Literal["once", "fixed-point"]
Repeats = Literal["any", "sum"]
Order = Literal[
    "value-users-items", "value-items-users", "users-items-value",
    "items-users-value", "users-value-items", "items-value-users",
]  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What counts as an interaction, and who has enough of them."""

    min_value: float | None = None
    """Keep pairs whose value is at least this; None keeps all, and needs no value."""
    strictly: bool = False
    """Keep only values above `min_value`, not those equal to it."""
    repeats: Repeats = "any"
    """A pair with several rows counts if "any" of them reaches `min_value`, or if their "sum" does;
    without a value each row is worth 1, so that a log of single plays is counted."""
    min_user_items: int = 1
    """Keep users with at least so many distinct items."""
    min_item_users: int = 1
    """Keep items with at least so many distinct users."""
    core: Core = "once"
    """Filter users and items "once", or to the "fixed-point" where both thresholds hold."""
    order: Order = "value-users-items"
    """What is filtered first, second and last. The order of users and items does not matter for
    the fixed point."""

    def __post_init__(self) -> None:
        set_fields(
            self,
            min_value=None if self.min_value is None else real("min_value", self.min_value),
            strictly=switch("strictly", self.strictly),
            repeats=one_of("repeats", self.repeats, get_args(Repeats)),
            min_user_items=whole("min_user_items", self.min_user_items),
            min_item_users=whole("min_item_users", self.min_item_users),
            core=one_of("core", self.core, get_args(Core)),
            order=one_of("order", self.order, get_args(Order)),
        )
        for name, value, idle in (("strictly", self.strictly, False),
                                  ("repeats", self.repeats, "any")):  # fmt: skip
            if value != idle and self.min_value is None:
                raise OptionError(f"`{name}` does nothing without `min_value`; give both.")
        if self.core == "fixed-point" and self.steps[1] == "value":
            raise OptionError(
                "`core` 'fixed-point' filters users and items together, so the value comes before "
                f"or after them; got the `order` {self.order!r}."
            )

    @property
    def steps(self) -> tuple[str, ...]:
        """The words of `order`."""
        return tuple(self.order.split("-"))


@dataclass(frozen=True)
class Paper:
    """What the paper (SIGIR 2019) says it did with a data set, and what it had afterwards."""

    rules: Rules
    """Its words, taken literally."""
    n_users: int
    """Users in its Table 1."""
    n_items: int
    """Items in its Table 1."""
    n_pairs: int
    """Interactions in its Table 1."""

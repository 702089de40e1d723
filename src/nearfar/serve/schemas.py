"""The types of requests and responses, which validate requests and define ``/openapi.json``.

An id is a string or an integer, regardless of the type of the model's ids (see
`nearfar.serve.names`). Requests are strict: an unknown field, text for a number or a number for
text is refused. A repeated id in a list counts once; of a repeated name in an object, the last one
counts.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

MAX_K: Final = 1000
MAX_IDS: Final = 1000
MAX_ID_LENGTH: Final = 256
MAX_MAP: Final = 100_000

Id = (
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**64)]
    | Annotated[StrictStr, Field(max_length=MAX_ID_LENGTH)]
)
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Filter = list[Id]
"""Ids of any number: the body's size bounds it, and it may contain every item."""
Setting = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False, strict=True)]
K = Annotated[StrictInt, Field(ge=1, le=MAX_K, description="The maximum length of the list.")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Somebody(_Asked):
    """A user of the model, or a new user, described by the items they like."""

    user: Id | None = Field(None, description="A user of the model.", examples=["196"])
    items: Annotated[Ids, Field(min_length=1)] | None = Field(
        None, description="The items that a new user likes.", examples=[None]
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.user is None) == (self.items is None):
            raise ValueError("give either `user` or `items`, not both")
        return self


class Filtered(_Asked):
    """Which items a list may have."""

    allow: Filter | None = Field(
        None,
        description="List only these items. Unknown ids are ignored and counted.",
        examples=[None],
    )
    deny: Filter | None = Field(
        None,
        description="Never list these items. Unknown ids are ignored and counted.",
        examples=[["50"]],
    )


class Recommend(Somebody, Filtered):
    """A request for recommendations."""

    k: K = 10
    exclude_seen: bool = Field(
        True, strict=True, description="Leave out the items of the user, or those in `items`."
    )
    popularity: Setting | None = Field(
        None,
        description="The popularity dial of a model with a prior: 0 is distance alone, 1 as it was"
        " calibrated, more is more popular. By default the model's own setting.",
        examples=[None],
    )
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = Field(
        0.0,
        description="How much the items of the list shall differ, 0 to 1; see `nearfar.CML`.",
        examples=[0.2],
    )


class SimilarItems(Filtered):
    """A request for the neighbours of an item."""

    item: Id = Field(examples=["50"])
    k: K = 10
    popularity: Setting = Field(
        0.0, description="The popularity dial; by default distance alone.", examples=[0.0]
    )


class Explain(Somebody):
    """A request for the reasons of an item for somebody."""

    item: Id = Field(description="The item to explain.", examples=["50"])
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(
        3, description="The maximum number of their items in the answer."
    )
    popularity: Setting | None = Field(
        None, description="The popularity dial, as for recommendations.", examples=[None]
    )


class SimilarUsers(_Asked):
    """A request for the neighbours of a user."""

    user: Id = Field(examples=["196"])
    k: K = 10


class VectorQuery(_Asked):
    """A request for the points of users and items."""

    users: Ids = Field(default=[], examples=[["196"]])
    items: Ids = Field(default=[], examples=[["50", "181"]])


# ------------------------------------------------------------------------------------- answers


class Result(BaseModel):
    """One entry of a list."""

    rank: int = Field(description="From 1.")
    id: int | str
    score: float = Field(
        description="1 - D^2 / 2: on the sphere, the cosine; plus the item's weight, if any."
    )
    title: str | None = Field(description="Null for users, and for items without a title.")
    popularity: int | None = Field(
        description="Number of users in the training data who have the item; null for users."
    )


class Results(BaseModel):
    """A list, the best first; shorter than `k` if fewer are left."""

    k: int
    results: list[Result]
    unknown: dict[str, int] = Field(
        default={},
        description="The number of ids in `allow` and in `deny` that the model does not know and"
        " that were ignored, if there are any.",
        examples=[{"deny": 3}],
    )


class Reason(BaseModel):
    """An item that somebody has, near the one that is explained."""

    id: int | str
    title: str | None
    similarity: float = Field(description="1 - D^2 / 2 between the two items; the cosine.")
    neighbours: float = Field(description="The part of the co-occurrence term due to this item.")


class Reasons(BaseModel):
    """Why an item is recommended: what its score is the sum of, and what is near it."""

    id: int | str
    title: str | None
    score: float = Field(description="closeness + prior + neighbours.")
    closeness: float = Field(description="1 - D^2 / 2: on the sphere, the cosine.")
    content: float | None = Field(
        description="The part of `closeness` due to the item's content; null without any."
    )
    own: float | None = Field(description="The rest of `closeness`; null like `content`.")
    prior: float = Field(description="The weight of the item at this setting of the dial.")
    neighbours: float = Field(description="The co-occurrence term; 0 without one.")
    popularity: float = Field(description="The setting of the dial.")
    n_own: int = Field(description="Number of the other items that they have.")
    nearest: list[Reason] = Field(description="Those of them that are nearest to the item.")


class PointList(BaseModel):
    """Points, in the order of the requested ids."""

    dim: int
    users: list[list[float]]
    items: list[list[float]]


class Found(BaseModel):
    """A search result."""

    id: int | str
    title: str | None
    popularity: int = Field(description="Number of users in the training data who have it.")


class FoundItems(BaseModel):
    """Items whose title or id contains the text, the most popular first."""

    results: list[Found]


class EpochFigures(BaseModel):
    """The validation metrics of an epoch."""

    epoch: int
    validation_ndcg: float | None
    validation_mmr: float | None


class IndexFigures(BaseModel):
    """The measured recall of the index, at the model's own setting of the popularity dial."""

    recall: float = Field(description="Measured share of the exact lists that it finds.")
    k: int = Field(description="The length of these lists.")


class SettingFigures(BaseModel):
    """The validation metrics at a setting of the popularity dial."""

    popularity: float
    ndcg: float
    mmr: float


class DialFacts(BaseModel):
    """The popularity dial of a model with a prior."""

    popularity: float = Field(description="The model's own setting.")
    k: int | None = Field(description="The length of the lists of `front`.")
    front: list[SettingFigures] = Field(
        description="By increasing setting; empty if gamma was not found on a validation part."
    )


class ModelFacts(BaseModel):
    """The served model."""

    version: str = Field(description="The version of nearfar.")
    format: int = Field(description="The format of saved folders.")
    loaded_at: str = Field(description="ISO 8601, in UTC.")
    fingerprint: str = Field(description="The fingerprint of the training data.")
    n_users: int
    n_items: int
    n_pairs: int
    dim: int
    gamma: float = Field(description="The popularity prior at setting 1 of the dial; 0 for none.")
    neighbour_weight: float = Field(
        description="The weight of the co-occurrence term in recommendations; 0 for none."
    )
    dial: DialFacts | None = Field(description="Null if the model has no prior.")
    options: dict[str, Any] = Field(description="The hyper-parameters.")
    metrics: dict[str, Any] = Field(description="The metrics saved with the model.")
    history: list[EpochFigures] = Field(description="The validated epochs.")
    index: IndexFigures | None
    categories: str | None = Field(description="The column that `category` of the map shows.")


class Map(BaseModel):
    """The most popular items in two dimensions; entry n of each list is of the same item."""

    method: str
    n_items: int = Field(description="Number of items of the model; the lists may have fewer.")
    ids: list[int | str]
    titles: list[str | None] | None
    x: list[float]
    y: list[float]
    popularity: list[int]
    category: list[str | None] | None


class Position(BaseModel):
    """A position on the map."""

    x: float
    y: float


FieldValue = StrictStr | StrictInt | float | list[StrictStr] | list[StrictInt] | list[float] | None


class NewItem(_Asked):
    """An item that the model does not have."""

    id: Id
    features: dict[str, FieldValue] = Field(
        description="Its fields, as those that the model was trained with.",
        examples=[{"genres": ["drama", "war"], "year": 1994}],
    )


class NewItems(_Asked):
    """Items that nobody has used yet."""

    items: Annotated[list[NewItem], Field(min_length=1, max_length=MAX_IDS)]


class Added(BaseModel):
    """The result of adding items."""

    added: int
    n_items: int = Field(description="Number of items of the model now.")


class Health(BaseModel):
    """The status of the server."""

    status: str = Field(examples=["ok"])


class Ready(BaseModel):
    """The server can answer requests."""

    status: str = Field(examples=["ready"])
    model_version: str = Field(description="As in the log.")


class ErrorText(BaseModel):
    """An error."""

    type: str = Field(examples=["UnknownIdError"])
    message: str = Field(description="The subject, its value, and what it must be.")


class Failure(BaseModel):
    """The response to a request that failed."""

    error: ErrorText

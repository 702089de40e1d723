"""What is asked and what is answered, as types: they check requests and make ``/openapi.json``.

An id is a string or an integer, whatever type the model's own ids have (see `nearfar.serve.names`).
Nothing is guessed: a field that is not known, text for a number or a number for text is refused.
Where a list of ids has one several times, it counts once; where an object has a name several times,
the last one counts.
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
K = Annotated[StrictInt, Field(ge=1, le=MAX_K, description="The longest the list may be.")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Somebody(_Asked):
    """A user of the model, or somebody unknown of whom we know what they like."""

    user: Id | None = Field(None, description="A user of the model.", examples=["196"])
    items: Annotated[Ids, Field(min_length=1)] | None = Field(
        None, description="What somebody likes who is not in the model.", examples=[None]
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.user is None) == (self.items is None):
            raise ValueError("give either `user` or `items`, and not both")
        return self


class Recommend(Somebody):
    """Whom to recommend something to, and what."""

    k: K = 10
    exclude_seen: bool = Field(
        True, strict=True, description="Leave out what they have, or what is in `items`."
    )
    allow: Ids | None = Field(None, description="Recommend only these items.", examples=[None])
    deny: Ids | None = Field(None, description="Never recommend these items.", examples=[["50"]])


class SimilarItems(_Asked):
    """The item whose neighbours are wanted."""

    item: Id = Field(examples=["50"])
    k: K = 10


class SimilarUsers(_Asked):
    """The user whose neighbours are wanted."""

    user: Id = Field(examples=["196"])
    k: K = 10


class VectorQuery(_Asked):
    """The users and items whose points are wanted."""

    users: Ids = Field(default=[], examples=[["196"]])
    items: Ids = Field(default=[], examples=[["50", "181"]])


# ------------------------------------------------------------------------------------- answers


class Result(BaseModel):
    """One entry of a list."""

    rank: int = Field(description="From 1.")
    id: int | str
    score: float = Field(description="1 - D^2 / 2: on the sphere, the cosine.")
    title: str | None = Field(description="Null for users, and for items without a title.")


class Results(BaseModel):
    """A list, the best first; shorter than `k` where no more are left."""

    k: int
    results: list[Result]


class PointList(BaseModel):
    """Points, in the order of the ids that were asked for."""

    dim: int
    users: list[list[float]]
    items: list[list[float]]


class Found(BaseModel):
    """An item that was searched for."""

    id: int | str
    title: str | None
    popularity: int = Field(description="How many users of the training data have it.")


class FoundItems(BaseModel):
    """Items whose title or id contains the text, the best known first."""

    results: list[Found]


class EpochFigures(BaseModel):
    """What the validation part said of an epoch."""

    epoch: int
    validation_ndcg: float | None
    validation_mmr: float | None


class IndexFigures(BaseModel):
    """What the approximate index promises."""

    recall: float = Field(description="Measured: the share of the exact lists that it finds.")
    k: int = Field(description="For lists of this length.")


class ModelFacts(BaseModel):
    """The model that is being served."""

    version: str = Field(description="Of nearfar.")
    format: int = Field(description="Of saved folders.")
    loaded_at: str = Field(description="ISO 8601, in UTC.")
    fingerprint: str = Field(description="Of the training data.")
    n_users: int
    n_items: int
    n_pairs: int
    dim: int
    options: dict[str, Any] = Field(description="The hyper-parameters.")
    metrics: dict[str, Any] = Field(description="Figures that were saved with the model.")
    history: list[EpochFigures] = Field(description="The epochs that were validated.")
    index: IndexFigures | None
    categories: str | None = Field(description="The column that `category` of the map is from.")


class Map(BaseModel):
    """The best known items in two dimensions; entry n of each list is of the same item."""

    method: str
    n_items: int = Field(description="All items of the model; the lists may have fewer.")
    ids: list[int | str]
    titles: list[str | None] | None
    x: list[float]
    y: list[float]
    popularity: list[int]
    category: list[str | None] | None


class Position(BaseModel):
    """A place on the map."""

    x: float
    y: float


class Health(BaseModel):
    """That the server answers."""

    status: str = Field(examples=["ok"])


class ErrorText(BaseModel):
    """What went wrong."""

    type: str = Field(examples=["UnknownIdError"])
    message: str = Field(description="The thing, the value it has, and what it must be.")


class Failure(BaseModel):
    """The answer where there is no other."""

    error: ErrorText

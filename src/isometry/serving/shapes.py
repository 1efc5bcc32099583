"""What goes in and out over HTTP, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["vector", "text", "hybrid"]


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`) and for programs (`type`)."""

    message: str = Field(description="one sentence: what is wrong and what to do")
    type: str


class ErrorBody(BaseModel):
    """Every answer that is no success has this shape."""

    error: ErrorDetail


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses, all of one shape."""
    return {status: {"model": ErrorBody, "description": _REASONS[status]} for status in statuses}


_REASONS = {
    400: "The body is no JSON",
    401: "The token is missing or wrong",
    403: "The server only reads, or the request comes from another site",
    404: "No such collection, record or model",
    408: "The body came too slowly",
    409: "It is there already",
    413: "The body is too large",
    415: "A body of another type is needed",
    421: "The server does not answer under this host name",
    422: "What was given cannot be used",
    429: "Too many requests at once",
    503: "The machine or the time failed",
}
EVERYWHERE = (401, 408, 413, 421, 422, 429, 503)


# ---- searching -------------------------------------------------------------------------------------------------------


class SearchBody(BaseModel):
    """A search, with the names of `isometry search`. Give one of query, vector, like and image, or none to browse."""

    model_config = ConfigDict(extra="forbid")
    query: str | None = Field(default=None, description="words")
    vector: list[float] | None = None
    made_by: str | None = Field(default=None, description="fingerprint of the encoder that made the vector")
    like: str | None = Field(default=None, description="id of a record to find others like it")
    image: str | None = Field(default=None, description="a picture in base64, where the encoder takes pictures")
    k: int = 10
    offset: int = 0
    where: str | None = Field(default=None, description="a filter, as  year(created) >= 2018 AND 'cs.IR' IN categories")
    mode: Mode = "vector"
    sort: str | None = Field(default=None, description="order of the most relevant, as 'created desc'")
    explain: bool = False
    facets: list[str] = []


class FacetBody(BaseModel):
    """Which records are counted, with the names of a search."""

    query: str | None = None
    like: str | None = None
    mode: Mode = "vector"
    where: str | None = None
    limit: int = 20


class HitAnswer(BaseModel):
    """A record that was found."""

    id: str
    score: float = Field(description="higher is closer")
    record: dict[str, Any]
    explanation: dict[str, Any] | None = None


class FacetValue(BaseModel):
    """How many records have this value."""

    value: str | bool | int | float
    count: int


class SearchAnswer(BaseModel):
    """As `isometry search --json` prints it; `explanation` and `facets` where they were asked for."""

    query: str | None
    hits: list[HitAnswer]
    total: int = Field(description="records that match")
    plan: dict[str, Any]
    milliseconds: float
    facets: dict[str, list[FacetValue]] | None = None


class FacetsAnswer(BaseModel):
    """For each column its values, the most frequent first."""

    facets: dict[str, list[FacetValue]]


class RecordAnswer(BaseModel):
    """The id and the attributes of the collection."""

    model_config = ConfigDict(extra="allow")
    id: str


class ColumnAnswer(BaseModel):
    """A column of the collection and what it is there for."""

    name: str
    type: str
    role: Literal["attribute", "text", "image"]


class CollectionAnswer(BaseModel):
    """As `isometry info --json` prints it."""

    model_config = ConfigDict(extra="allow")
    name: str
    records: int
    encoder: dict[str, Any] | None
    dimension: int
    metric: Literal["cosine", "dot"]
    bytes_on_disk: int
    bytes_in_memory: int
    format: int
    version: int
    indexes: list[dict[str, Any]]
    columns: list[ColumnAnswer]
    text_columns: list[str]


# ---- embeddings ------------------------------------------------------------------------------------------------------


class EmbeddingsBody(BaseModel):
    """As the OpenAI interface has it."""

    input: str | list[str] = Field(description="one text or several; tokens are not taken")
    model: str = Field(default="default", description="name of an encoder; free where only one is served")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, description="keep the first so many, scaled to length one again")
    user: str | None = None


class Embedding(BaseModel):
    """The vector of the input at `index`."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="numbers, or little-endian float32 in base64")


class Usage(BaseModel):
    """Tokens that were read; both figures are the same, as nothing is generated."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """As the OpenAI interface has it."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(description="the encoder that made them")
    usage: Usage


# ---- writing ---------------------------------------------------------------------------------------------------------


class RecordsBody(BaseModel):
    """Records to put; `vectors` with `made_by` where they were encoded elsewhere."""

    model_config = ConfigDict(extra="forbid")
    records: list[dict[str, Any]]
    vectors: list[list[float]] | None = None
    made_by: str | None = None


class WrittenAnswer(BaseModel):
    """What was done; it is on disk when this is answered."""

    added: int
    updated: int
    unchanged: int
    records: int = Field(description="in the collection now")


class DeleteBody(BaseModel):
    """Ids of records to delete; one that is not there is passed over."""

    model_config = ConfigDict(extra="forbid")
    ids: list[str]


class DeletedAnswer(BaseModel):
    """What was done; it is on disk when this is answered."""

    deleted: int
    records: int = Field(description="in the collection now")


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"
    version: str

"""The OpenAPI document: schemas from the types in schemas.py, with the texts below their fields."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cache
from typing import Any

import msgspec

from eqm.sampling.settings import Sampling
from eqm.schema import LARGEST
from eqm.serving.http import schemas

STATUSES = {
    400: "A value is wrong; the sentence says which, and what to change.",
    401: "The token is missing or wrong.",
    403: "The request comes from the page of another site, or names another host.",
    404: "There is no such model.",
    408: "The request came too slowly.",
    413: "The request has too many bytes.",
    429: "The queue or the memory is full; `Retry-After` says when to ask again.",
    503: "The server is closing.",
    504: "The deadline passed.",
}
"""What the status of an error means."""
SHAPES = (Sampling, schemas.Error)
"""Types of the document that no endpoint names itself."""


def components(kinds: Iterable[Any]) -> dict[str, Any]:
    """The JSON schemas of dataclasses by name, with the docstrings of their fields as descriptions."""
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    own = [each for each in vars(schemas).values() if isinstance(each, type) and is_dataclass(each)]
    for kind in (*own, Sampling):
        schema = found.get(kind.__name__)
        if schema and (kind is Sampling or kind.__name__.endswith("Ask")):
            schema["additionalProperties"] = False
        for name, text in docs_of(kind).items():
            if schema and name in schema["properties"]:
                schema["properties"][name] = {**schema["properties"][name], "description": text}
        if schema and "sampling" in schema["properties"] and kind is not Sampling:
            about = schema["properties"]["sampling"].get("description", "")
            if kind.__name__.endswith("Ask"):
                schema["properties"]["sampling"] = {
                    "allOf": [{"$ref": "#/components/schemas/Sampling"}],
                    "description": about,
                }
    return {name: _without_limits_of_floats(schema) for name, schema in found.items()}


def body(kind: type, example: dict[str, Any]) -> dict[str, Any]:
    """The part of an operation that describes its body."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def answer(kind: type, *, events: bool = False) -> dict[int | str, Any]:
    """The answer of an operation, perhaps also as server-sent events."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if events:
        texts = {"event": {"type": "string"}, "data": {"type": "string"}}
        content["text/event-stream"] = {"schema": {"type": "object", "properties": texts}}
    return {200: {"description": "The answer.", "content": content}}


def add_refusals(document: dict[str, Any]) -> None:
    """Returns nothing; adds the errors, which are the same everywhere, to every operation of a document."""
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # it is 400 here
            for status, text in STATUSES.items():
                operation["responses"][str(status)] = {"description": text, "content": refused}


@cache
def docs_of(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass and of those it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(tree, ast.ClassDef)
        for line, after in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[line.target.id] = " ".join(str(after.value.value).split())
    return found


def _without_limits_of_floats(schema: Any) -> Any:
    """The schema without the bounds that only say that a number is finite."""
    if isinstance(schema, dict):
        return {
            key: _without_limits_of_floats(value)
            for key, value in schema.items()
            if not (key in ("maximum", "minimum") and abs(value) >= LARGEST)
        }
    if isinstance(schema, list):
        return [_without_limits_of_floats(each) for each in schema]
    return schema

"""The documentation of each field of a profile or snapshot: the docstring under it in the source.

pydantic can read these docstrings too (`use_attribute_docstrings`). But it reads them when a class
is created, which took 5 % of the time that the app needs to start, and it does not read docstrings
in dataclasses. So this module reads them, and only when they are needed.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


def meanings(model: type[Any]) -> dict[str, str]:
    """Return the docstring of each field of a pydantic model or dataclass, inherited ones included.

    Raises OSError if the source code is not available.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind is not BaseModel and (
            issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)
        ):
            found |= _documented(kind.__module__).get(kind.__name__, {})
    if issubclass(model, BaseModel):
        fields = list(model.model_fields)
    else:
        fields = [one.name for one in dataclasses.fields(model)]
    return {key: found[key] for key in fields if key in found}


@functools.cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    """Return the docstring of each annotated attribute in `module`, by class and attribute."""
    source = inspect.getsource(sys.modules[module])
    return {
        node.name: {
            key.target.id: inspect.cleandoc(text.value.value)
            for key, text in zip(node.body, node.body[1:], strict=False)
            if isinstance(key, ast.AnnAssign)
            and isinstance(key.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


class DescribedSchema(GenerateJsonSchema):
    """A JSON Schema in which each field of a model or dataclass is described by its docstring."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return pydantic's schema of a model with a description for each key."""
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Return pydantic's schema of a dataclass with a description for each field."""
        return _described(super().dataclass_schema(schema), schema["cls"])

    def encode_default(self, dft: Any) -> Any:
        """Return the JSON value of the default `dft`.

        If `dft` is an instance of a pydantic model whose validators are not built yet (because
        building was deferred), they are built first: pydantic before 2.14 cannot encode it
        otherwise.
        """
        if isinstance(dft, BaseModel):
            type(dft).model_rebuild()
        return super().encode_default(dft)


def _described(schema: JsonSchemaValue, model: type[Any]) -> JsonSchemaValue:
    properties: dict[str, dict[str, object]] = schema.get("properties", {})
    for key, text in meanings(model).items():
        properties[key]["description"] = text
    return schema

"""The documentation of each profile key: the docstring under the field, read from the source.

pydantic can read these docstrings too (`use_attribute_docstrings`), but does so when it creates a
class. That took 5 % of the time until the first frame, which shows none of them. So this module
reads them only when they are needed.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the attribute docstrings of `model` and its base models, by key.

    Raises OSError if the source code is not available.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _documented(kind.__module__).get(kind.__name__, {})
    return {key: found[key] for key in model.model_fields if key in found}


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
    """A JSON Schema in which each key of a model is described by its documentation."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return pydantic's schema of a model with a description for each key."""
        made = super().model_schema(schema)
        properties: dict[str, Any] = made.get("properties", {})
        for key, text in meanings(schema["cls"]).items():
            properties[key]["description"] = text
        return made

    def encode_default(self, dft: Any) -> Any:
        """Return the JSON value of a default; build a model first if its building was deferred.

        pydantic before 2.14 cannot encode a model that is not built.
        """
        if isinstance(dft, BaseModel):
            type(dft).model_rebuild()
        return super().encode_default(dft)

"""The base class of a snapshot's records, and two kinds of field that pydantic lacks.

`Text` allows lone surrogates, which the text of a model or a file name may contain and pydantic's
own strings refuse. `AsObject` stores a frozen dataclass of the worker's messages or of the
statistics as a JSON object and checks it as messages are checked. So its fields need not be
declared again as a pydantic model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    TypeAdapter,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from quantchat.wire.codec import from_json


class Record(BaseModel):
    """Part of a snapshot: validation is strict, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )

    formerly: ClassVar[Mapping[str, str]] = {}
    """Old name of a field in saved snapshots → its current name."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.keys().isdisjoint(cls.formerly):
            return value
        return {cls.formerly.get(key, key): item for key, item in value.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:80]!r} is not text")
    return value


Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
"""Any text, unchanged.

Two lone surrogates that form a pair come back from a file as the one character they stand for: JSON
writes both the same way (RFC 8259, section 8.2)."""


class _AsObject:
    """Marks a dataclass that is stored as a JSON object of its fields."""

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def validate(value: Any) -> Any:
            return value if isinstance(value, source) else from_json(source, value, saved=True)

        return core_schema.no_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(dataclasses.asdict),
            metadata={"source": source},
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        source = schema["metadata"]["source"]
        # A definitions schema makes pydantic describe the dataclass once, and then refer to it.
        return handler(core_schema.definitions_schema(TypeAdapter(source).core_schema, []))


_T = TypeVar("_T")

AsObject = Annotated[_T, _AsObject()]
"""`AsObject[SomeDataclass]`: stored as a JSON object, read by the rules of the worker protocol."""

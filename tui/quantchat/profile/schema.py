"""The JSON Schema of a profile, with which editors complete and check keys."""

from __future__ import annotations

from quantchat.profile.field_docs import DescribedSchema
from quantchat.profile.model import Profile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a profile, with a description for each key."""
    described = Profile.model_json_schema(schema_generator=DescribedSchema)
    return {"$schema": DIALECT, **described, "title": "quantchat profile"}

"""Write a profile as TOML, with only the keys that differ from their defaults."""

from __future__ import annotations

import json
from typing import Any

from quantchat.engines.registry import engines
from quantchat.engines.table import inner_tables
from quantchat.profile.model import AnyVariant, Profile


def to_toml(profile: Profile) -> str:
    """Return `profile` as the text of a TOML file."""
    body = profile.model_dump(mode="json", exclude_defaults=True)
    variants = body.pop("variants")
    tables = [_lines({key: body.pop(key) for key in ("name", "description") if key in body})]
    tables += map(_variant, variants)
    tables += [f"[{key}]\n{_lines(values)}" for key, values in body.items()]
    return "\n".join(tables)


def variant_toml(variant: AnyVariant) -> str:
    """Return the table `[[variants]]` of one variant as TOML."""
    return _variant(variant.model_dump(mode="json", exclude_defaults=True))


def _variant(body: dict[str, Any]) -> str:
    inner = inner_tables(engines()[body["engine"]].variant_table)
    own = {key: body.pop(key) for key in inner if body.get(key) is not None}
    tables = [f"[variants.{key}]\n{_lines(values)}" for key, values in own.items()]
    return "\n".join(["[[variants]]\n" + _lines(body), *tables])


def _lines(values: dict[str, object]) -> str:
    return "".join(f"{_key(key)} = {value_toml(value)}\n" for key, value in values.items())


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else value_toml(key)


def value_toml(value: Any) -> str:
    """Return a value of a key as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {value_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_toml, value)) + "]"
    # JSON's strings, numbers and booleans are valid TOML, except that TOML requires an escaped DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

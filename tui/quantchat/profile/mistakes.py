"""Translate the errors that pydantic finds in a profile into plain messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from quantchat.engines.registry import broken, engines
from quantchat.engines.table import inner_tables
from quantchat.engines.variant import VariantBase
from quantchat.profile.field_docs import meanings
from quantchat.profile.model import Generation, Profile, Run
from quantchat.profile.nearest import did_you_mean
from quantchat.profile.toml_text import KeyPath


def _tables() -> Iterator[tuple[tuple[str, ...], tuple[type[BaseModel], str]]]:
    yield (), (Profile, "at the top of the file")
    yield ("generation",), (Generation, "in [generation]")
    yield ("run",), (Run, "in [run]")
    yield ("variants",), (VariantBase, "in [[variants]]")
    for name, engine in sorted(engines().items()):
        yield ("variants", name), (engine.variant_table, f'in a variant with engine = "{name}"')
        for key, table in inner_tables(engine.variant_table).items():
            yield ("variants", name, key), (table, f"in [variants.{key}]")


Tables = dict[tuple[str, ...], tuple[type[BaseModel], str]]

TABLES: Tables = dict(_tables())
"""The pydantic model of each TOML table, and where in the file it is, in words. The key is
pydantic's path to the table without list indexes, e.g. `("variants", "gptq", "quantize")`."""

_KINDS = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


class Mistake(NamedTuple):
    """A mistake in a profile: the TOML path of the key, what is wrong, and how to fix it.

    `hint` may be empty.
    """

    path: KeyPath
    what: str
    hint: str

    @property
    def text(self) -> str:
        """What is wrong, with the hint."""
        return f"{self.what} ({self.hint})" if self.hint else self.what


def mistakes(error: ValidationError, model: type[BaseModel] = Profile) -> Iterator[Mistake]:
    """Yield each mistake in `error`, which was raised by validating a file as `model`.

    `model` is a profile, one of its TOML tables, or another file that has some of these tables.
    """
    own = {path: table for path, table in TABLES.items() if path and path[0] in model.model_fields}
    tables = TABLES if model is Profile else {(): (model, "at the top of the file"), **own}
    for details in error.errors(include_url=False):
        yield _mistake(details, tables)


def key_text(path: KeyPath) -> str:
    """Return a key path as text, with indexes that begin at 1: `variants[2].quantize.bits`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part) else as_toml(part)
            text += f".{key}" if text else key
    return text


def as_toml(value: Any) -> str:
    """Return a value as TOML text for a message.

    Long strings are shortened; a table is returned as "a table" and a list as "a list".
    """
    match value:
        case str():
            return json.dumps(value if len(value) <= 40 else value[:40] + "…", ensure_ascii=False)
        case bool():
            return "true" if value else "false"
        case int():
            # Python refuses to convert an integer of thousands of digits to text.
            return str(value) if value.bit_length() <= 64 else "this number (it is too large)"
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return str(value)


def _mistake(details: ErrorDetails, tables: Tables) -> Mistake:
    # In pydantic's path the engine's name follows the variant's index; the file has no such level.
    inside_variant = len(details["loc"]) > 2 and details["loc"][0] == "variants"
    path = details["loc"][:2] + details["loc"][3:] if inside_variant else details["loc"]
    if path[-1:] == ("[key]",):  # pydantic's name for the key of a table with free keys
        path = path[:-1]
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    match kind:
        case "extra_forbidden":
            return Mistake(path, "unknown key", _where_it_belongs(details["loc"], tables))
        case "missing":
            return Mistake(path, "is missing", _purpose(details["loc"], tables))
        case "union_tag_not_found":
            return Mistake(
                (*path, "engine"), "is missing", f"name one of {', '.join(sorted(engines()))}"
            )
        case "union_tag_invalid":
            tag = value["engine"] if isinstance(value, dict) else value
            if (failure := broken().get(str(tag))) is not None:
                return Mistake((*path, "engine"), f"{as_toml(tag)} cannot be used", failure)
            return _not_one_of((*path, "engine"), tag, sorted(engines()))
        case "literal_error":
            known = [a or b for a, b in re.findall(r"'([^']*)'|(-?\d+)", context["expected"])]
            return _not_one_of(path, value, known)
        case "value_error":
            return Mistake(path, str(context["error"]), "")
        case "too_short":
            least = context["min_length"]
            return Mistake(
                path, f"needs at least {least} entries, has {context['actual_length']}", ""
            )
        case "too_long":
            most = context["max_length"]
            return Mistake(
                path, f"may have at most {most} entries, has {context['actual_length']}", ""
            )
        case "string_too_short":
            return Mistake(path, "must not be empty", "")
        case "string_too_long":
            return Mistake(path, f"is longer than {context['max_length']} characters", "")
        case "string_pattern_mismatch":
            return Mistake(
                path,
                f"{as_toml(value)} does not have the required form",
                _examples(details["loc"], tables),
            )
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            bound = re.sub(r"^Input should be ", "", details["msg"])
            return Mistake(path, f"{as_toml(value)} is out of range", f"must be {bound}")
        case _ if kind in _KINDS:
            return Mistake(path, f"must be {_KINDS[kind]}, not {as_toml(value)}", "")
        case _:
            return Mistake(path, details["msg"], "")


def _not_one_of(path: KeyPath, value: Any, known: list[str] | tuple[str, ...]) -> Mistake:
    near = did_you_mean(value, known) if isinstance(value, str) else ""
    return Mistake(path, f"{as_toml(value)} is not one of {', '.join(known)}", near)


def _table(loc: KeyPath) -> tuple[str, ...]:
    """Return the key in TABLES of the table that contains the last part of `loc`."""
    return tuple(part for part in loc[:-1] if isinstance(part, str))


def _where_it_belongs(loc: KeyPath, tables: Tables) -> str:
    key, here = str(loc[-1]), _table(loc)
    model, _ = tables[here]
    for table, place in tables.values():
        if key in table.model_fields:
            return f"it belongs {place}"
    return did_you_mean(key, model.model_fields) or f"the keys are {', '.join(model.model_fields)}"


def _purpose(loc: KeyPath, tables: Tables) -> str:
    model, _ = tables[_table(loc)]
    return meanings(model).get(str(loc[-1]), "").split(". ")[0].rstrip(".")


def _examples(loc: KeyPath, tables: Tables) -> str:
    model, _ = tables[_table(loc)]
    examples = model.model_fields[str(loc[-1])].examples or []
    return f"such as {', '.join(map(str, examples))}" if examples else ""

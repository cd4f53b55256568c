"""A commented template for a new profile, generated from the pydantic models of profiles.

It contains each key with its documentation. Keys with a default value are commented out and show
this value.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Container, Mapping

from pydantic import BaseModel

from quantchat.engines.registry import DEFAULT_METHODS, engines, methods
from quantchat.engines.table import inner_tables
from quantchat.engines.variant import DEMO_MODEL, VariantBase
from quantchat.profile.field_docs import meanings
from quantchat.profile.model import Generation, Profile, Run

_WIDTH = 96

_TABLES = {"variants", "generation", "run"}
"""Keys of the profile that are TOML tables. (Tables inside a variant are found separately.)"""

_HEAD = """\
# A profile of quantchat: check it with `quantchat profiles check FILE`, open it with
# `quantchat FILE`. A key after a bare # shows its default; remove the # to set it.
#
# For completion in an editor: `quantchat schema profile > profile.schema.json`, and as the first
# line of this file `#:schema ./profile.schema.json`.
"""


def template() -> str:
    """Return a valid profile as TOML, to be edited by the user.

    It compares the default quantization methods, applied to the demo's model.
    """
    documented: Container[str] = ()
    variants = []
    for name in DEFAULT_METHODS:
        engine, method = methods()[name]
        head = {"label": method.label, "engine": engine.name, "model": DEMO_MODEL}
        variants.append(_table("[[variants]]", engine.variant_table, head, documented=documented))
        for key, table in inner_tables(engine.variant_table).items():
            # The widths of the demo's model are not multiples of the usual group size 128.
            values = {"group_size": 64} if method.calibrated else {}
            variants.append(_table(f"[variants.{key}]", table, values))
        documented = VariantBase.model_fields
    return "\n".join(
        (
            _HEAD,
            _table("", Profile, {"name": "My comparison", "description": "GPTQ against NF4."}),
            _engines(),
            *variants,
            _table("[generation]", Generation, {}),
            _table("[run]", Run, {}),
        )
    )


def _engines() -> str:
    """Return a comment that lists each engine and what it loads, one line each."""
    lines = [f"#   {name:<12}  {engine.summary}\n" for name, engine in engines().items()]
    return "".join(("# Write one [[variants]] for each variant. The engines:\n", *lines))


def _table(
    header: str,
    model: type[BaseModel],
    values: Mapping[str, object],
    *,
    documented: Container[str] = (),
) -> str:
    """Return a table as TOML: `values` first, then its other keys as comments with their defaults.

    Keys in `documented` are left without documentation, because an earlier table documents them;
    without a value they are left out.
    """
    lines = [header] if header else []
    lines += _comment(inspect.getdoc(model) or "")
    means = meanings(model)
    tables = _TABLES | inner_tables(model).keys()
    for name in dict.fromkeys((*values, *model.model_fields)):
        field = model.model_fields[name]
        if name not in values and (name in documented or name in tables):
            continue
        if name not in documented:
            lines += ["", *_comment(means.get(name, ""))]
        if name in values:
            lines.append(f"{name} = {json.dumps(values[name])}")
        else:
            value = field.examples[0] if field.default is None and field.examples else field.default
            lines.append(f"#{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# "
    )

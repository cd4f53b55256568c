"""A commented starting point for a profile, written from the models.

Each key stands in it with its documentation, those with a default commented out and showing it.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Container
from typing import Any

from pydantic import BaseModel

from quantchat.profile.field_docs import meanings
from quantchat.profile.model import (
    DEMO_MODEL,
    BitsAndBytes,
    Generation,
    Gptq,
    Profile,
    Run,
    VariantBase,
)
from quantchat.profile.quantize import Quantize

_WIDTH = 96

_TABLES = {"variants", "generation", "run", "quantize", "server"}
"""Keys that are written as tables of their own."""

_HEAD = """\
# A profile of quantchat: check it with `quantchat profiles check FILE`, open it with
# `quantchat FILE`. A key after a bare # shows its default; take the # away to set it.
#
# For completion in an editor: `quantchat schema profile > profile.schema.json`, and as the first
# line of this file `#:schema ./profile.schema.json`.
"""

_VARIANTS = """\
# A [[variants]] for each. The engines:
#   bitsandbytes  quantized while loading, without calibration
#   gptq          a finished GPTQ checkpoint, or one made here first
#   auto-gptq     the same through auto-gptq, in an environment that has it (env = "auto-gptq")
#   transformers  not quantized, or any other checkpoint that transformers loads by itself
#   openai        a server that runs it, at base_url = "http://…/v1" (docs/servers.md)
"""


def template() -> str:
    """Return a valid profile, ready to be edited: GPTQ against NF4 on the demo's model."""
    return "\n".join(
        (
            _HEAD,
            _table("", Profile, {"name": "My comparison", "description": "GPTQ against NF4."}),
            _VARIANTS,
            _table("[[variants]]", Gptq, _variant("GPTQ 4-bit", "gptq")),
            # The widths of the demo's model are no multiples of the usual 128.
            _table("[variants.quantize]", Quantize, {"group_size": 64}),
            _table(
                "[[variants]]",
                BitsAndBytes,
                _variant("NF4, double quant", "bitsandbytes"),
                told=VariantBase.model_fields,
            ),
            _table("[generation]", Generation, {}),
            _table("[run]", Run, {}),
        )
    )


def _variant(label: str, engine: str) -> dict[str, str]:
    return {"label": label, "engine": engine, "model": DEMO_MODEL}


def _table(
    header: str, model: type[BaseModel], values: dict[str, Any], *, told: Container[str] = ()
) -> str:
    """The table with `values` first, then its other keys, commented out.

    Keys that were `told` elsewhere are not documented again.
    """
    lines = [header] if header else []
    lines += _comment(inspect.getdoc(model) or "")
    means = meanings(model)
    for name in dict.fromkeys((*values, *model.model_fields)):
        field = model.model_fields[name]
        if name not in values and (name in told or name in _TABLES):
            continue
        if name not in told:
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

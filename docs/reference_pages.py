"""Hook of MkDocs: make the reference of profiles and snapshots from their pydantic models.

These pages are made while the site is built and are not kept in the repository, so they cannot
differ from the code. `mkdocs.yml` names this file; the commands come from mkdocs-click.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from quantchat.profile.field_docs import DescribedSchema
from quantchat.profile.model import Profile
from quantchat.snapshot.schema import Snapshot

PAGES: dict[str, tuple[str, type[BaseModel], str]] = {
    "reference/profile-keys.md": (
        "Keys of a profile",
        Profile,
        "Every table and key of a [profile](profiles.md). `quantchat schema profile` prints the"
        " same as a JSON Schema, with which an editor completes and checks.",
    ),
    "reference/snapshot-fields.md": (
        "Fields of a snapshot",
        Snapshot,
        "Every object and field of a snapshot's JSON file. `quantchat schema snapshot` prints the"
        " same as a JSON Schema. [Save, compare and report](../how-to/comparing.md) explains what"
        " snapshots are for.",
    ),
}

_REPOSITORY_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./){2,}[^)]*\)")
"""A link to a file of the repository that is outside `docs/` and so not a page of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from models."""
    for path, (title, model, introduction) in PAGES.items():
        text = f"# {title}\n\n{introduction}\n\n" + "\n".join(_tables(model))
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the text alone of a link that leads out of `docs/`, to a file of the repository."""
    return _REPOSITORY_LINK.sub(r"\1", markdown)


def _tables(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema(schema_generator=DescribedSchema)
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    for name, described in [(model.__name__, schema), *sorted(definitions.items())]:
        if "properties" not in described:
            continue
        yield f"## {name}\n\n{described.get('description', '')}\n"
        yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
        required = described.get("required", ())
        for key, value in described["properties"].items():
            default = "required" if key in required else _code(value.get("default"))
            cells = (f"`{key}`", _type(value, definitions), default, value.get("description", ""))
            yield "| " + " | ".join(map(_cell, cells)) + " |"
        yield ""


def _type(value: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> str:
    """Return the type of a field in Markdown; objects link to their own table."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        if "properties" in definitions.get(name, {}):
            return f"[{name}](#{name.lower()})"
        return _type(definitions[name], definitions)
    if "const" in value:
        return _code(value["const"])
    if "enum" in value:
        return " or ".join(map(_code, value["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_type(one, definitions) for one in value[several]))
    match value.get("type"):
        case "array":
            return f"list of {_type(value.get('items', {}), definitions)}"
        case "object" if isinstance(inner := value.get("additionalProperties"), dict):
            return f"table of {_type(inner, definitions)}"
        case "object":
            return "table"
        case str(plain):
            return plain
    return "any"


def _code(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict) and value:
        return "see its table"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

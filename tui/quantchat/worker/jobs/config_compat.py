"""Makes a checkpoint that transformers 5 wrote readable for transformers 4 too.

Another interpreter, with an older transformers, may load the checkpoint. Version 5 writes the
rotary settings to `rope_parameters`, version 4 reads `rope_theta` and `rope_scaling`. Version 5
also writes a tokenizer class that version 4 does not know; both versions read the older name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def add_version_4_keys(folder: Path) -> None:
    """Add version 4's keys to the configs of model and tokenizer in `folder`, if they exist."""
    _rewrite(folder / "config.json", _rope)
    _rewrite(folder / "tokenizer_config.json", _tokenizer)


def _rewrite(file: Path, change: Any) -> None:
    if file.is_file():
        body = json.loads(file.read_text(encoding="utf-8"))
        change(body)
        file.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rope(config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or {}
    # There may be no rotary settings, or separate settings for each layer type, which version 4
    # cannot express.
    if "rope_theta" not in rope:
        return
    config["rope_theta"] = rope["rope_theta"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if scaling.get("rope_type", "default") != "default":
        config["rope_scaling"] = scaling


def _tokenizer(config: dict[str, Any]) -> None:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"

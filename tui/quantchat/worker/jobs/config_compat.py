"""What transformers 4 reads, written beside what transformers 5 wrote.

A checkpoint made here may be loaded under another interpreter with an older transformers.
Version 5 keeps rotary settings in `rope_parameters`, 4 reads `rope_theta` and `rope_scaling`;
5 names a tokenizer class that 4 does not know, and reads the older name as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_both(folder: Path) -> None:
    """Complete `config.json` and `tokenizer_config.json` in `folder`, where they lie there."""
    _rewrite(folder / "config.json", _rope)
    _rewrite(folder / "tokenizer_config.json", _tokenizer)


def _rewrite(file: Path, change: Any) -> None:
    if file.is_file():
        body = json.loads(file.read_text(encoding="utf-8"))
        change(body)
        file.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rope(config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or {}
    if "rope_theta" not in rope:  # none, or one for each kind of layer: 4 has no word for that
        return
    config["rope_theta"] = rope["rope_theta"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if scaling.get("rope_type", "default") != "default":
        config["rope_scaling"] = scaling


def _tokenizer(config: dict[str, Any]) -> None:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"

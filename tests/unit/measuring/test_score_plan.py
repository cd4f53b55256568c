"""The longest window that all variants of a score take by default."""

from __future__ import annotations

from typing import Any

from quantchat.measuring.score_plan import LONGEST, WINDOW, longest_window
from quantchat.profile.model import Profile


def variants(*specs: dict[str, Any]) -> list[Any]:
    named = [{"label": f"v{number}", "model": "org/m", **spec} for number, spec in enumerate(specs)]
    return list(Profile.model_validate({"name": "P", "variants": named}).variants)


def test_the_default_window_is_the_longest_that_all_variants_take() -> None:
    local = {"engine": "transformers"}
    gguf = {"engine": "gguf", "model": "m.gguf"}
    server = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1"}
    assert longest_window(variants(local, gguf)) == (LONGEST, "")
    assert longest_window(variants(local, {**gguf, "n_ctx": 9000})) == (LONGEST, "")
    window, limit = longest_window(variants(local, {**gguf, "n_ctx": 1500}))
    assert (window, limit) == (1500, "v1 has a context of 1500")
    window, limit = longest_window(variants({**gguf, "n_ctx": 1500}, server))
    assert window == WINDOW
    assert "v1 is behind a server" in limit

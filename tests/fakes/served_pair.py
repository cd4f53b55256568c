"""A profile of two variants that use the same server on loopback."""

from __future__ import annotations


def served_pair(url: str, *, name: str = "servers", max_new_tokens: int = 8) -> str:
    """Return the profile as TOML, with the server at `url`; the variants are `one` and `other`."""
    return f"""
name = "{name}"
generation = {{ max_new_tokens = {max_new_tokens} }}
[[variants]]
label = "one"
engine = "openai"
model = "tiny"
base_url = "{url}"
[[variants]]
label = "other"
engine = "openai"
model = "tiny"
base_url = "{url}"
"""

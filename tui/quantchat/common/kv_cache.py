"""KV caches that store keys and values in fewer bits: the formats of a variant's `kv_cache`.

transformers' `QuantizedCache` holds them (`quantchat.worker.decode.caches`). `fp8` stores each
token when it comes, with one scale for a layer. The integer formats are HQQ's, with a scale and a
zero for each `GROUP` elements of a head; the latest tokens stay unquantized until they are
`RECENT`, and then all tokens are quantized anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.wire.library import Library

GROUP = 64
"""Elements that share a scale and a zero; fewer where the size of a head is no multiple of it."""

RECENT = 128
"""Tokens at the end that an integer cache holds unquantized, at most: transformers' default."""


@dataclass(frozen=True)
class KvCacheFormat:
    """How a cache stores keys and values."""

    backend: str
    """transformers' name of it."""
    bits: int
    recent: int = 0
    """Tokens at the end that are not quantized, at most."""
    library: Library | None = None
    """What it needs beside transformers."""

    def element(self, size: int) -> float:
        """Return the bytes of an element with its scales; `size` is that of an unquantized one."""
        return self.bits / 8 + (2 * size / GROUP if self.recent else 0)


_HQQ = Library("hqq", "hqq", dependency=False, extra="hqq")

KV_CACHES = {
    "fp8": KvCacheFormat("fp8", 8),
    "int8": KvCacheFormat("hqq", 8, RECENT, _HQQ),
    "int4": KvCacheFormat("hqq", 4, RECENT, _HQQ),
}
"""By the value of `kv_cache`."""

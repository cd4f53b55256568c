"""KV caches that store keys and values in fewer bits: the formats of a variant's `kv_cache`.

The caches are transformers' `QuantizedCache` (see `quantchat.worker.decode.caches`). `fp8`
quantizes each token immediately, with one scale per layer. The integer formats are HQQ's, with a
scale and a zero point for each `GROUP` elements of a head. They leave new tokens unquantized; when
there are `RECENT` new tokens, all cached tokens are quantized again.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.wire.library import Library

GROUP = 64
"""Elements that share a scale and a zero point; fewer if the head size is no multiple of this."""

RECENT = 128
"""Most tokens at the end that an integer cache leaves unquantized: transformers' default."""


@dataclass(frozen=True)
class KvCacheFormat:
    """How a cache stores keys and values."""

    backend: str
    """transformers' name of the format's implementation."""
    bits: int
    recent: int = 0
    """Most tokens at the end that are not quantized."""
    library: Library | None = None
    """The library that the format needs in addition to transformers; None if it needs none."""

    def element(self, element_bytes: int) -> float:
        """Return the bytes of an element of the cache, including its share of the scales.

        `element_bytes` is the size of an unquantized element in bytes.
        """
        return self.bits / 8 + (2 * element_bytes / GROUP if self.recent else 0)


_HQQ = Library("hqq", "hqq", dependency=False, extra="hqq")

KV_CACHES = {
    "fp8": KvCacheFormat("fp8", 8),
    "int8": KvCacheFormat("hqq", 8, RECENT, _HQQ),
    "int4": KvCacheFormat("hqq", 4, RECENT, _HQQ),
}
"""Key: a value of `kv_cache` in a profile; value: the format."""

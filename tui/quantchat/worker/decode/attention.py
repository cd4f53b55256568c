"""Which of torch's attention backends computes `scaled_dot_product_attention`.

torch decides at each call, from the GPU, the dtype, the shapes and the mask. On Hopper and
Blackwell its own first choice is cuDNN, which builds a plan for each KV length that it has not
seen: workers put cuDNN last (`TORCH_CUDNN_SDPA_DEPRIORITIZED`, see `host/worker_process.py`). Since
the choice may differ between machines and releases, it is recorded beside each result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class BackendRecord:
    """The backends that computed prefill and decode, each the last one seen."""

    def __init__(self) -> None:
        self._prefill = ""
        self._decode = ""

    def __str__(self) -> str:
        """`flash`, or `flash, decode efficient` where the two differ; empty if nothing was seen."""
        if not self._prefill or self._decode in ("", self._prefill):
            return self._prefill or self._decode
        return f"{self._prefill}, decode {self._decode}"

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record each call while the block lasts.

        Not for code under torch.compile, which would trace what is put in the function's place.
        """
        from torch.nn import functional

        original = functional.scaled_dot_product_attention

        def recorded(query: Any, key: Any, value: Any, *more: Any, **options: Any) -> Any:
            result = original(query, key, value, *more, **options)
            self._note(query, key, value, *more, **options)
            return result

        functional.scaled_dot_product_attention = recorded
        try:
            yield
        finally:
            functional.scaled_dot_product_attention = original

    def _note(self, query: Any, key: Any, value: Any, *more: Any, **options: Any) -> None:
        import torch
        from torch.nn.attention import SDPBackend

        choice = torch._fused_sdp_choice(query, key, value, *more, **options)
        name = SDPBackend(choice).name.removesuffix("_ATTENTION").lower()
        # As many queries as keys: a prompt. In decoding, heads that share a key may stand as rows.
        if query.shape[-2] == key.shape[-2] > 1:
            self._prefill = name
        else:
            self._decode = name

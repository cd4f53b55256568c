"""Record which of torch's backends computes `scaled_dot_product_attention`.

torch chooses a backend at each call, by GPU, dtype, shapes and mask. On Hopper and Blackwell its
first choice is cuDNN, which is slow while decoding, because it builds an execution plan for each
new length of the KV cache. Therefore workers make cuDNN the last choice
(`TORCH_CUDNN_SDPA_DEPRIORITIZED`, see `host/worker_process.py`). The choice differs between
machines and releases, so it is saved with each result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class BackendRecord:
    """The backends that last computed prefill and decode."""

    def __init__(self) -> None:
        self._prefill = ""
        self._decode = ""

    def __str__(self) -> str:
        """`flash`, or `flash, decode efficient` if the two differ; empty if there was no call."""
        if not self._prefill or self._decode in ("", self._prefill):
            return self._prefill or self._decode
        return f"{self._prefill}, decode {self._decode}"

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record each call while the context lasts.

        Do not use this for code under torch.compile, which would trace the recording function.
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
        # As many queries as keys means a prefill. Several queries alone do not mean one: when
        # `cpu.llama_step.LlamaStep` decodes a token, it passes the query heads that share a key as
        # several queries.
        if query.shape[-2] == key.shape[-2] > 1:
            self._prefill = name
        else:
            self._decode = name

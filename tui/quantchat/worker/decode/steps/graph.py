"""The static step (`static.py`) as a CUDA graph: captured once, then replayed with one launch.

The capture works without Dynamo (torch.compile), so that the kernels of bitsandbytes and GPTQModel
are included unchanged. There is one graph for each allocated length of the cache; a capture takes a
fraction of a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from quantchat.common.memory_rules import buckets
from quantchat.worker.decode.norms import fused_norms
from quantchat.worker.decode.steps.static import StaticStep
from quantchat.worker.failures import Refused

_BEFORE_CAPTURE = 2
"""Steps before a capture: first calls of kernels allocate workspaces and tune themselves, which is
forbidden during a capture.

Waiting for the device is forbidden too. The last of these steps finds out whether a kernel does
that, because a failed capture leaves torch's allocator unable to free memory.
"""


_ON_THE_DEFAULT_STREAM = ("ExllamaV2Linear", "AwqExllamaV2Linear")
"""GPTQModel's layers whose kernels always run on the default stream (q_gemm.cu): a graph that is
captured on another stream would lack them."""


class GraphStep(StaticStep):
    """Replays the captured step.

    `forget` keeps the cache's buffers, because the graphs contain their addresses. Each of `norms`
    is captured as one kernel (see `decode.norms`). Raises Refused if a graph is not possible.
    """

    def __init__(self, model: Any, norms: Sequence[Any] = ()) -> None:
        if model.device.type != "cuda":
            raise Refused(
                "unsupported",
                f'decode = "graph" needs a CUDA device, the model is on {model.device}',
                'use decode = "auto"',
            )
        if any(type(module).__name__ in _ON_THE_DEFAULT_STREAM for module in model.modules()):
            raise Refused(
                "unsupported",
                'decode = "graph" is not possible: ExLlamaV2 runs on a stream that is not captured',
                'use decode = "eager", or kernel = "marlin"',
            )
        super().__init__(model, "graph")
        self._norms = norms
        if norms:
            self.name = "graph, fused norms"
        self._graphs: dict[int, tuple[Any, Any]] = {}
        """Key: window, the number of tokens in the cache's buffers that the graph reads; value: the
        graph, and the logits that it writes."""
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(model.device)
        """The only stream for captures: cuBLAS keeps a workspace for each stream (32 MiB on
        Hopper), which would count as the variant's memory."""

    def prepare(self, first: int, last: int) -> None:
        """Grow the cache once, and capture a graph for each length that the answer may have.

        Otherwise a token would wait a tenth of a second or more for a capture. If memory is short,
        preparation ends without an error, because the answer may turn out short.
        """
        layers = self.cache.layers
        if not layers[0].is_initialized:
            return
        try:
            with torch.inference_mode():
                for layer in layers:
                    layer.reserve(last)
                self._detect_moves()
                # Captures write to this position, which is empty: the prompt's tokens precede it.
                self._position.fill_(first - 1)
                with self._writing_to_position():
                    for window in buckets(first, last):
                        self._graph(window)
        except torch.OutOfMemoryError:
            self._detect_moves()

    def forget(self) -> None:
        """Empty the KV cache; its buffers stay for the next answer."""
        for layer in self.cache.layers:
            layer.length = 0
        self._length = 0

    def _moved(self) -> None:
        self._graphs.clear()
        # The old pool may still hold workspaces of libraries, or logits in use, and torch does not
        # accept such a pool for a new capture.
        self._pool = torch.cuda.graph_pool_handle()

    def _decode(self, window: int) -> Any:
        graph, logits = self._graph(window)
        graph.replay()
        return logits

    def _graph(self, window: int) -> tuple[Any, Any]:
        """Return the graph for the first `window` cached tokens, and the logits that it writes."""
        if window not in self._graphs:
            self._graphs[window] = self._capture(window)
        return self._graphs[window]

    def _forward(self, places: Any) -> Any:
        with fused_norms(self._norms):
            return super()._forward(places)

    def _capture(self, window: int) -> tuple[Any, Any]:
        for layer in self.cache.layers:
            layer.window = window
        places = torch.arange(window, device=self._position.device)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Each of these steps writes the same token to the same position of the cache.
            for _ in range(_BEFORE_CAPTURE - 1):
                self._forward(places)
            with _no_host_wait():
                self._forward(places)
        before = torch.cuda.current_stream()
        before.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                logits = self._forward(places)
        except BaseException:
            torch.cuda.set_stream(before)  # after a failed capture torch stays on `_stream`
            raise
        # The graph reads the memory of `places`, so that tensor must live as long as the graph.
        graph.places = places
        return graph, logits


@contextlib.contextmanager
def _no_host_wait() -> Iterator[None]:
    """Raise Refused if code makes the CPU wait for the GPU, as LLM.int8() does for outliers."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        raise Refused(
            "unsupported",
            'decode = "graph" is not possible: a kernel makes the host wait for the GPU',
            'use decode = "eager"',
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode(mode)

"""The decode step as a CUDA graph: captured once, then replayed with one launch.

Captured by hand and without Dynamo, so that bitsandbytes' and GPTQModel's kernels go in as they
are. One graph for each length of the cache in steps; capturing takes a fraction of a second.
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
"""Steps run before a capture: first calls allocate workspaces and tune, which it does not allow.

The last of them must not wait for the device, which a capture does not allow either: one that fails
leaves torch's allocator unable to give memory back, so it is not tried then.
"""


_ON_THE_DEFAULT_STREAM = ("ExllamaV2Linear", "AwqExllamaV2Linear")
"""GPTQModel's layers whose kernels are launched without naming a stream (q_gemm.cu): a graph that
is captured on another one would lack them."""


class GraphStep(StaticStep):
    """Replays the step. The buffers are kept when the cache is dropped: the graphs point there.

    `norms` of the model are captured as one kernel each; see there.
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
        """By window: the graph, and the logits it writes."""
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(model.device)
        """The one stream for all captures: cuBLAS keeps a workspace for each stream it has seen (32
        MiB on Hopper), which would count as the variant's memory."""

    def prepare(self, first: int, last: int) -> None:
        """Grow the cache once, and capture a graph for each length that the answer may have.

        A step that has to do it makes its token wait for a tenth of a second and more. Where memory
        is short nothing is made ahead: the answer may be a short one.
        """
        layers = self.cache.layers
        if not layers[0].is_initialized:
            return
        try:
            with torch.inference_mode():
                for layer in layers:
                    layer.reserve(last)
                self._look_for_moves()
                # A place that nothing is cached in yet: the prompt's own tokens come before it.
                self._position.fill_(first - 1)
                with self._slots():
                    for window in buckets(first, last):
                        self._graph(window)
        except torch.OutOfMemoryError:
            self._look_for_moves()

    def forget(self) -> None:
        """Empty the KV cache; its buffers stay for the next answer."""
        for layer in self.cache.layers:
            layer.length = 0
        self._length = 0

    def _moved(self) -> None:
        self._graphs.clear()
        # Not the old pool: without graphs nothing uses it, though a library's workspace, or logits
        # that are still looked at, may lie there, and torch asserts that such a one is not shared.
        self._pool = torch.cuda.graph_pool_handle()

    def _decode(self, window: int) -> Any:
        graph, logits = self._graph(window)
        graph.replay()
        return logits

    def _graph(self, window: int) -> tuple[Any, Any]:
        """The graph over the first `window` places, captured if it is not yet, and its logits."""
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
            for _ in range(_BEFORE_CAPTURE - 1):  # the same token to the same place each time
                self._forward(places)
            with _never_waiting():
                self._forward(places)
        before = torch.cuda.current_stream()
        before.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                logits = self._forward(places)
        except BaseException:
            torch.cuda.set_stream(before)  # torch stays on the stream of a capture that fails
            raise
        # The graph reads `places` wherever it lies: it must live as long.
        graph.places = places
        return graph, logits


@contextlib.contextmanager
def _never_waiting() -> Iterator[None]:
    """Refuse what makes the host wait for the device: LLM.int8() looks for outliers so, say."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        raise Refused(
            "unsupported",
            'decode = "graph" is not possible: a kernel of the model makes the host wait for it',
            'use decode = "eager"',
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode(mode)

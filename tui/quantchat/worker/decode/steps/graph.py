"""The decode step as a CUDA graph: captured once, then replayed with one launch.

Captured by hand and without Dynamo, so that bitsandbytes' and GPTQModel's kernels go in as they
are. One graph for each length of the cache in steps; capturing takes a fraction of a second.
"""

from __future__ import annotations

from typing import Any

import torch

from quantchat.worker.decode.steps.slot import SlotStep
from quantchat.worker.failures import Refused

_BEFORE_CAPTURE = 2
"""Steps run before a capture: first calls allocate workspaces and tune, which it does not allow."""


class GraphStep(SlotStep):
    """Replays the step. The buffers are kept when the cache is dropped: the graphs point there."""

    def __init__(self, model: Any) -> None:
        if model.device.type != "cuda":
            raise Refused(
                "unsupported",
                f'decode = "graph" needs a CUDA device, the model is on {model.device}',
                'use decode = "auto"',
            )
        super().__init__(model, "graph")
        self._graphs: dict[int, tuple[Any, Any]] = {}
        """By window: the graph, and the logits it writes."""
        self._pool = torch.cuda.graph_pool_handle()

    def forget(self) -> None:
        """Empty the KV cache; its buffers stay for the next answer."""
        for layer in self.cache.layers:
            layer.length = 0

    def _moved(self) -> None:
        self._graphs.clear()

    def _decode(self, window: int) -> Any:
        if window not in self._graphs:
            self._graphs[window] = self._capture(window)
        graph, logits = self._graphs[window]
        graph.replay()
        return logits

    def _capture(self, window: int) -> tuple[Any, Any]:
        for layer in self.cache.layers:
            layer.window = window
        places = torch.arange(window, device=self._position.device)
        side = torch.cuda.Stream(self._position.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_BEFORE_CAPTURE):  # the same token to the same place each time
                self._forward(places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._forward(places)
        # The graph reads `places` wherever it lies: it must live as long.
        graph.places = places
        return graph, logits

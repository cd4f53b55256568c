"""The check that a decode step computes what the model's own modules compute."""

from __future__ import annotations

from typing import Any

from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.engines.loaded import Loaded

SAMPLE = (
    "Quantization stores the weights of a model in fewer bits. What is lost by that, and what is "
    "gained, differs from model to model; so it is measured, and not believed."
)
STEPS = 12
"""Tokens decoded one by one after the sample."""

ULPS = 16
"""Most that logits may be off, relative, in units of the dtype's rounding. Sums in another order
were seen to be 2 or 3 of them off, a compiled model, which rounds less often, 10. A mistake is off
by about the logits themselves: 128 of bfloat16's."""

LEAST = 1e-3
"""Error that is let pass in any dtype: float32's own rounding says nothing of a kernel's."""


class Check:
    """The reference: logits of the model's own modules over a text and some greedy tokens after it.

    Made once for a loaded model; that runs the first forward pass, in which kernels may repack
    their weights.
    """

    def __init__(self, loaded: Loaded) -> None:
        import torch

        ids = loaded.tokenizer_backend.encode(SAMPLE).ids[: max(2, loaded.context_length - STEPS)]
        self._device = loaded.input_device
        self._prompt = torch.tensor([ids], device=self._device)
        self._tokens: list[Any] = []
        self._expected: list[Any] = []
        reference = EagerStep(loaded.model)
        logits = reference.run(self._prompt)
        for _ in range(STEPS):
            self._expected.append(logits.float())
            self._tokens.append(logits.argmax(dim=-1, keepdim=True))
            logits = reference.run(self._tokens[-1])
        self._expected.append(logits.float())
        reference.forget()
        self._most = max(LEAST, ULPS * torch.finfo(loaded.model.dtype).eps)

    def fault(self, step: Step) -> str:
        """What is wrong with `step`, empty where nothing is; its cache is left empty.

        It is given the reference's tokens (teacher forcing), so that one rounding does not decide
        all that follows, then made to take back half of them and to go over these again.
        """
        half = STEPS // 2
        error = self._error(step.run(self._prompt), 0)
        for place, token in enumerate(self._tokens):
            error = max(error, self._error(step.run(token), place + 1))
        if step.cut(half):
            for place in range(STEPS - half, STEPS):
                error = max(error, self._error(step.run(self._tokens[place]), place + 1))
        step.forget()
        if error <= self._most:  # and not the other way round: NaN is a fault
            return ""
        return f"its logits are off by {error:.1%}, {self._most:.1%} would be rounding"

    def _error(self, logits: Any, place: int) -> float:
        """Relative error of `logits`, (1, vocabulary), in the Euclidean norm."""
        expected = self._expected[place]
        found = float((logits.float() - expected).norm() / expected.norm())
        return found if found == found else float("inf")

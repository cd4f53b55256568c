"""Checks a loaded model's KV cache against a pass without a cache, then each faster step.

The reference is one forward pass over all tokens, without a cache. The model's own modules with a
cache are compared with it once: a prompt in two pieces, then single tokens, then several tokens at
once, as in a second turn. Faster steps are then compared with the model's own modules.
"""

from __future__ import annotations

import inspect
from statistics import median
from typing import Any

from quantchat.worker.decode.cache_rules import CacheRules, longrope_switch
from quantchat.worker.decode.caches import has_states
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import DEVICE_FAILED, Refused, describe
from quantchat.worker.model.loaded import Loaded

SAMPLE = (
    "Quantization stores the weights of a model in fewer bits. What is lost by that, and what is "
    "gained, differs from model to model; so it is measured, and not believed."
)
STEPS = 12
"""Number of tokens decoded one by one after the sample."""

ULPS = 16
"""Largest relative error of logits, in units of the dtype's rounding. Sums in another order gave an
error of 2 or 3, a compiled model, which rounds less often, 10. A wrong result has an error about as
large as the logits themselves: 128 units of bfloat16."""

LEAST = 1e-3
"""Error accepted in any dtype: kernels may round more coarsely than a float32 model does."""


MORE = 8
"""Number of tokens of the second turn."""

NONSENSE = 0.5
"""Median error of the cache above which a model is refused; a model that ignores its cache had 1.4.
Errors that are larger than rounding but below this limit are reported."""

_EXACT_STATES = (
    *("bamba", "falcon_h1", "granitemoehybrid", "kimi_linear", "lfm2", "lfm2_moe", "nemotron_h"),
    *("olmo_hybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "zamba2"),
)
"""Model types with recurrent states that several tokens at once continue exactly. Others lose part
of the state (the convolution of Mamba, Jamba and RecurrentGemma). The rounding of a coarse dtype
hides that error; `benchmarks/architectures.py` shows it in float32."""


class Check:
    """The reference logits of the model's own modules, for a text and some tokens after it.

    Created once for a loaded model, with its first forward pass, in which kernels may repack their
    weights. `rules` says what its cache allows. Raises Refused for a model that cannot be decoded
    token by token, because its cache gives other results.
    """

    def __init__(self, loaded: Loaded) -> None:
        import torch

        self._model = loaded.model
        ids = loaded.tokenizer_backend.encode(SAMPLE).ids
        most = max(2, loaded.context_length - STEPS - MORE)
        device = loaded.input_device
        self._prompt = torch.tensor([ids[:most]], device=device)
        self._more = self._prompt[:, :MORE]
        self._tokens: list[Any] = []
        self._most = max(LEAST, ULPS * torch.finfo(loaded.model.dtype).eps)
        self._expected: list[Any] = []
        self.rules = self._examine()

    # ------------------------------------------------------------ the cache of the model

    def _examine(self) -> CacheRules:
        """Compare the cache with an uncached pass, and set `_tokens` and `_expected`."""
        config = self._model.config
        switch = longrope_switch(config)
        in_pieces = float("inf")
        try:
            found, trusted = self._cached(self._prompt.shape[1] // 2)
            uncached = self._uncached()
            if not all(bool(row.isfinite().all()) for row in uncached):
                return CacheRules(
                    switch=switch
                )  # the model is damaged, which its answers will show
            *errors, second_turn = map(_error, found, uncached)
            if trusted:
                in_pieces = max(median(errors), second_turn)
            if in_pieces <= self._most:
                return CacheRules(switch=switch)
        except Exception as error:  # noqa: BLE001 - one piece may work if two do not
            _raise_device_errors(error)
        try:
            found, _ = self._cached(0)
            *errors, _ = map(_error, found, self._uncached())
        except Exception as error:
            _raise_device_errors(error)
            raise self._refused(
                f"decoding with the cache fails: {describe(error).reason}"
            ) from error
        # Use the median, because a wrong cache gives errors at every token, but the rounding of a
        # router only at some.
        whole = median(errors)
        if not whole <= NONSENSE:
            raise self._refused(f"its logits are off by {whole:.0%}")
        problem = (
            f"with its cache the logits differ by {whole:.1%} from those of a pass without, "
            f"{self._most:.1%} would be rounding"
        )
        return CacheRules(
            pieces=in_pieces <= 2 * max(errors),
            switch=switch,
            problem=problem if whole > self._most else "",
        )

    def _refused(self, why: str) -> Refused:
        return Refused(
            "unsupported",
            f"{type(self._model).__name__} cannot be decoded with its cache by this release of "
            f"transformers: {why}",
            "run it in a server (docs/how-to/servers.md), or try another release",
        )

    def _cached(self, cut: int) -> tuple[list[Any], bool]:
        """Return the logits with a cache, and whether rounding is fine enough to show a fault.

        The logits are those after the prompt, which is read in two pieces split at `cut` (0: in one
        piece), after each of the greedy tokens that follow, and after a second turn.
        """
        step = EagerStep(self._model)
        if cut:
            step.run(self._prompt[:, :cut])
        logits = step.run(self._prompt[:, cut:])
        self._tokens, self._expected = [], []
        for _ in range(STEPS):
            self._expected.append(logits.float())
            self._tokens.append(logits.argmax(dim=-1, keepdim=True))
            logits = step.run(self._tokens[-1])
        self._expected.append(logits.float())
        found = [*self._expected, step.run(self._more).float()]
        trusted = (
            self._most <= LEAST
            or self._model.config.get_text_config().model_type in _EXACT_STATES
            or not has_states(step.cache)
        )
        step.forget()
        return found, trusted

    def _uncached(self) -> list[Any]:
        """Return the logits that `_cached` should give, from one pass over the same tokens."""
        import torch

        ids = torch.cat([self._prompt, *self._tokens, self._more], dim=-1)
        named = inspect.signature(self._model.forward).parameters.values()
        knows = any(one.name == "use_cache" or one.kind is one.VAR_KEYWORD for one in named)
        places = STEPS + 1 + self._more.shape[1]
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids, logits_to_keep=places, **({"use_cache": False} if knows else {})
            ).logits[:, -places:]
        rows = logits.float().unbind(dim=1)
        return [*rows[: STEPS + 1], rows[-1]]

    # ------------------------------------------------------------ faster steps

    def fault(self, step: Step) -> str:
        """Return what is wrong with `step`, or an empty text. Clears the step's cache.

        The step reads the reference's tokens (teacher forcing), so that one rounding does not
        change everything after it. Then half of the tokens are cut off and computed again.
        """
        half = STEPS // 2
        error = self._error(step.run(self._prompt), 0)
        for place, token in enumerate(self._tokens):
            error = max(error, self._error(step.run(token), place + 1))
        if step.cut(half):
            for place in range(STEPS - half, STEPS):
                error = max(error, self._error(step.run(self._tokens[place]), place + 1))
        step.forget()
        if error <= self._most:  # this form of the comparison makes NaN a fault
            return ""
        return f"its logits are off by {error:.1%}, {self._most:.1%} would be rounding"

    def _error(self, logits: Any, place: int) -> float:
        """Return the relative error of `logits`, (1, vocabulary), in the Euclidean norm."""
        return _error(logits.float(), self._expected[place])


def _error(found: Any, expected: Any) -> float:
    error = float((found - expected).norm() / expected.norm())
    return error if error == error else float("inf")


def _raise_device_errors(error: Exception) -> None:
    failure = describe(error)
    if failure.kind in ("out_of_memory", DEVICE_FAILED):
        raise error

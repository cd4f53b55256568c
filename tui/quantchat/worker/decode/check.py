"""Checks a loaded model's KV cache, and then each faster decode step, by comparing logits.

First, the logits that the model's own modules compute with a cache are compared with those of one
forward pass over all tokens, without a cache. With the cache, a prompt is computed in two pieces,
then single tokens follow, then several tokens at once, as in a second turn of a chat. Later, the
logits of each faster step are compared with those of the model's own modules with a cache.
"""

from __future__ import annotations

import inspect
import time
from statistics import median
from typing import Any

from quantchat.worker.decode.cache_rules import CacheRules, longrope_limit
from quantchat.worker.decode.caches import has_states
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import DEVICE_FAILED, Refused, describe
from quantchat.worker.model.loaded import Loaded

SAMPLE = (
    "Quantization stores the weights of a model in fewer bits. What is lost by that, and what is "
    "gained, differs from model to model; so it is measured, and not believed."
)
STEPS = 5
"""Largest number of tokens that are decoded one by one after `SAMPLE`."""

_FEWEST_STEPS = 3
"""Number of tokens that are decoded however long they take."""

_SLOW_S = 2.0
"""Time in seconds after which no further token is decoded: otherwise a model with slow kernels
would take minutes to load. A wrong step already shows at the first token."""

ULPS = 16
"""Largest accepted relative error of logits, in units of the dtype's machine epsilon. Measured:
sums in another order gave 2 or 3 units; a compiled model, which rounds less often, 10. A wrong
result has an error about as large as the logits themselves: 128 units of bfloat16."""

_LEAST_TOLERANCE = 1e-3
"""Relative error accepted in every dtype: kernels may round more coarsely than float32 does."""

_SECOND_TURN = 8
"""Number of tokens of the second turn."""

_REFUSED_ERROR = 0.5
"""Median relative error with the cache above which a model is refused; a model that ignored its
cache had 1.4. A smaller error that is larger than rounding is reported in the variant's note."""

_EXACT_STATES = (
    *("bamba", "falcon_h1", "granitemoehybrid", "kimi_linear", "lfm2", "lfm2_moe", "nemotron_h"),
    *("olmo_hybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "zamba2"),
)
"""Model types with recurrent states to which several tokens at once can be appended exactly. Other
types lose part of the state when that is done (Mamba, Jamba and RecurrentGemma lose the state of
their convolution). The rounding of a coarse dtype hides that error; `benchmarks/architectures.py`
shows it in float32."""


class Check:
    """The logits of the model's own modules for a text and some tokens after it.

    They are the reference for faster steps. A `Check` is created once for a loaded model; its
    constructor runs the first forward pass, in which kernels may repack their weights. `rules` says
    what the model's cache allows. Raises Refused for a model that cannot be decoded token by token,
    because the logits with its cache are wrong.
    """

    def __init__(self, loaded: Loaded) -> None:
        import torch

        self._model = loaded.model
        ids = loaded.tokenizer_backend.encode(SAMPLE).ids
        most = max(2, loaded.context_length - STEPS - _SECOND_TURN)
        device = loaded.input_device
        self._prompt = torch.tensor([ids[:most]], device=device)
        self._second_turn = self._prompt[:, :_SECOND_TURN]
        self._tokens: list[Any] = []
        self._tolerance = max(_LEAST_TOLERANCE, ULPS * torch.finfo(loaded.model.dtype).eps)
        self._expected: list[Any] = []
        self.rules = self._examine()

    # ------------------------------------------------------------ the cache of the model

    def _examine(self) -> CacheRules:
        """Compare the logits with a cache and without one; return what the cache allows.

        Set `_tokens`, the greedy tokens after the prompt, and `_expected`, the logits with a cache.
        """
        config = self._model.config
        limit = longrope_limit(config)
        error_in_chunks = float("inf")
        try:
            found, conclusive = self._cached(self._prompt.shape[1] // 2)
            uncached = self._uncached()
            if not all(bool(row.isfinite().all()) for row in uncached):
                # The model is damaged. Its answers will show that, so it is not refused here.
                return CacheRules(longrope_limit=limit)
            *errors, second_turn = map(_error, found, uncached)
            if conclusive:
                error_in_chunks = max(median(errors), second_turn)
            if error_in_chunks <= self._tolerance:
                return CacheRules(longrope_limit=limit)
        except Exception as error:  # noqa: BLE001 - one chunk may work if two do not
            _raise_device_errors(error)
        try:
            found, _ = self._cached(0)
            *errors, _ = map(_error, found, self._uncached())
        except Exception as error:
            _raise_device_errors(error)
            raise self._refusal(
                f"decoding with the cache fails: {describe(error).reason}"
            ) from error
        # The median, because a wrong cache gives errors at every token, while rounding in a
        # mixture-of-experts router gives errors only at some tokens.
        median_error = median(errors)
        if not median_error <= _REFUSED_ERROR:
            raise self._refusal(f"its logits are off by {median_error:.0%}")
        problem = (
            f"with its KV cache the logits differ by {median_error:.1%} from those without a cache "
            f"(rounding explains {self._tolerance:.1%})"
        )
        return CacheRules(
            appendable=error_in_chunks <= 2 * max(errors),
            longrope_limit=limit,
            problem=problem if median_error > self._tolerance else "",
        )

    def _refusal(self, why: str) -> Refused:
        return Refused(
            "unsupported",
            f"{type(self._model).__name__} cannot be decoded with its cache by this release of "
            f"transformers: {why}",
            "run it in a server (docs/how-to/servers.md), or try another release",
        )

    def _cached(self, cut: int) -> tuple[list[Any], bool]:
        """Return logits with a cache, and whether equality with `_uncached` proves the cache right.

        The prompt is computed in two chunks, split at the index `cut`; 0: in one chunk. The logits
        are those after the prompt, after each of the greedy tokens that follow, and after a second
        turn. For a model with recurrent states, equality proves nothing if the dtype is so coarse
        that rounding hides a lost state.
        """
        step = EagerStep(self._model)
        if cut:
            step.run(self._prompt[:, :cut])
        logits = step.run(self._prompt[:, cut:])
        self._tokens, self._expected = [], []
        began = time.perf_counter()
        while len(self._tokens) < STEPS and (
            len(self._tokens) < _FEWEST_STEPS or time.perf_counter() - began < _SLOW_S
        ):
            self._expected.append(logits.float())
            self._tokens.append(logits.argmax(dim=-1, keepdim=True))
            logits = step.run(self._tokens[-1])
        self._expected.append(logits.float())
        found = [*self._expected, step.run(self._second_turn).float()]
        conclusive = (
            self._tolerance <= _LEAST_TOLERANCE
            or self._model.config.get_text_config().model_type in _EXACT_STATES
            or not has_states(step.cache)
        )
        step.forget()
        return found, conclusive

    def _uncached(self) -> list[Any]:
        """Return the same logits as `_cached`, computed in one pass over the same tokens."""
        import torch

        ids = torch.cat([self._prompt, *self._tokens, self._second_turn], dim=-1)
        named = inspect.signature(self._model.forward).parameters.values()
        takes_use_cache = any(
            one.name == "use_cache" or one.kind is one.VAR_KEYWORD for one in named
        )
        places = len(self._tokens) + 1 + self._second_turn.shape[1]
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids,
                logits_to_keep=places,
                **({"use_cache": False} if takes_use_cache else {}),
            ).logits[:, -places:]
        rows = logits.float().unbind(dim=1)
        return [*rows[: len(self._expected)], rows[-1]]

    # ------------------------------------------------------------ faster steps

    def fault(self, step: Step) -> str:
        """Return what is wrong with `step`, or an empty text. Clears the step's cache.

        The step gets the reference's tokens (teacher forcing), because a single token changed by
        rounding would change all later tokens. Then the second half of these tokens is cut from the
        step's cache and computed again.
        """
        count = len(self._tokens)
        half = count // 2
        error = self._error(step.run(self._prompt), 0)
        for place, token in enumerate(self._tokens):
            error = max(error, self._error(step.run(token), place + 1))
        if step.cut(half):
            for place in range(count - half, count):
                error = max(error, self._error(step.run(self._tokens[place]), place + 1))
        step.forget()
        if error <= self._tolerance:  # this form of the comparison makes NaN a fault
            return ""
        return f"its logits are off by {error:.1%} (rounding explains {self._tolerance:.1%})"

    def _error(self, logits: Any, place: int) -> float:
        """Return the relative error of `logits`, (1, vocabulary), in the Euclidean norm.

        They are compared with the reference's logits after the prompt and `place` further tokens.
        """
        return _error(logits.float(), self._expected[place])


def _error(computed: Any, expected: Any) -> float:
    error = float((computed - expected).norm() / expected.norm())
    return error if error == error else float("inf")


def _raise_device_errors(error: Exception) -> None:
    failure = describe(error)
    if failure.kind in ("out_of_memory", DEVICE_FAILED):
        raise error

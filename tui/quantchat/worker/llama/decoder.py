"""The decoder of a model that llama.cpp computes."""

from __future__ import annotations

import time
from collections.abc import Callable

from quantchat.wire.messages import ScoreTokens, TokenScores
from quantchat.wire.variant import Ledger, ModelInfo
from quantchat.worker.decode.loop_decoder import WARM_UP_STEPS, WARM_UP_TOKENS, LoopDecoder
from quantchat.worker.llama.loop import LlamaLoop
from quantchat.worker.llama.model import LlamaModel
from quantchat.worker.llama.teacher_forcing import score_tokens
from quantchat.worker.memory import Peak, resident_bytes


class LlamaDecoder(LoopDecoder):
    """Answers prompts with llama.cpp. The constructor runs a warm-up, as that of `Decoder` does."""

    def __init__(self, loaded: LlamaModel) -> None:
        self._loaded = loaded
        self._context = loaded.context()
        self._peak = Peak()
        super().__init__(loaded, LlamaLoop(self._context))
        count = min(WARM_UP_TOKENS, loaded.context_length - 2 * WARM_UP_STEPS)
        self._loop.warm_up([n % loaded.own_tokenizer.size for n in range(count)], WARM_UP_STEPS)
        self._loop.forget()

    @property
    def note(self) -> str:
        """Notes for the user on what runs."""
        return self._loaded.note

    def model_info(self) -> ModelInfo:
        """Return a description of what really runs."""
        attention = "flash" if self._context.flash else "llama.cpp"
        option = self._loaded.command.option
        kinds = (option("type_k", "f16"), option("type_v", "f16"))
        cache = "" if kinds == ("f16", "f16") else f", KV cache {kinds[0]}/{kinds[1]}"
        return self._loaded.model_info(f"llama.cpp{cache}", attention)

    def ledger(self) -> Ledger:
        """Return the memory ledger of this moment.

        llama.cpp logs the size of each buffer; torch allocates nothing. If the model is on a GPU,
        `process` is not set here: the main process reads the GPU memory of this process.
        """
        model, now = self._loaded, time.perf_counter_ns()
        on_gpu = model.device != "cpu"
        process, highest = (-1, -1) if on_gpu else resident_bytes()
        self._peak.update(highest, now)
        scales = model.scales
        return Ledger(
            device=model.device,
            weights=model.weight_bytes,
            weights_by_dtype=dict(model.weights),
            overhead={"scales": scales} if scales else {},
            kv_cache=self._loop.kv_bytes(),
            other_live=self._context.compute.total(),
            slack=-1,
            non_torch=-1,
            process=process,
            peak=self._peak.bytes,
            peak_at_ns=self._peak.at_ns,
            at_ns=now,
            weights_by_device=model.weights_by_device,
        )

    def _score(
        self, prompt: list[int], request: ScoreTokens, cancelled: Callable[[], bool]
    ) -> TokenScores:
        return score_tokens(self._loaded, prompt, request, cancelled)

    def _set_threads(self, threads: int) -> None:
        if threads and threads != self._loaded.threads:
            self._loaded.threads = threads
            self._context.set_threads(threads)

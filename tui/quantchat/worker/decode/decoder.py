"""The decoder of a torch model, which answers one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property

from quantchat.wire.messages import ScoreTokens, TokenScores
from quantchat.wire.variant import Ledger, ModelInfo
from quantchat.worker.decode.attention import BackendRecord
from quantchat.worker.decode.draft import Draft
from quantchat.worker.decode.loop_decoder import WARM_UP_STEPS, WARM_UP_TOKENS, LoopDecoder
from quantchat.worker.decode.modes import Report, choose
from quantchat.worker.decode.teacher_forcing import score_tokens
from quantchat.worker.memory import LedgerReader
from quantchat.worker.model.devices import bfloat16_note, ignored_gpu_note
from quantchat.worker.model.loaded import Loaded


class Decoder(LoopDecoder):
    """Answers prompts with a torch model, using the loop for `mode` (see `modes.choose`).

    The constructor runs a warm-up: the first calls repack weights, compile kernels and fill caches,
    which no TTFT should include. `report` is called with the name of each slow stage.
    Raises Refused for a mode that cannot run here.
    """

    def __init__(
        self, loaded: Loaded, mode: str, report: Report, draft: Loaded | None = None
    ) -> None:
        """Build the loop for `mode`; the model `draft`, if any, drafts tokens for `loaded`."""
        self._loaded = loaded
        self._draft_model = draft.model if draft is not None else None
        attention = BackendRecord()
        with nullcontext() if mode == "compile" else attention.recording():
            self.chosen = choose(loaded, mode, report, Draft.of(loaded, draft))
            super().__init__(loaded, self.chosen.loop)
            ids = list(range(min(WARM_UP_TOKENS, loaded.context_length - 2 * WARM_UP_STEPS)))
            self._loop.warm_up(ids, WARM_UP_STEPS)
        self._attention_backend = str(attention)
        self._loop.forget()

    @property
    def note(self) -> str:
        """Notes for the user on the device, the model and the decode mode."""
        loaded = self._loaded
        notes = (
            ignored_gpu_note(loaded.command.device),
            bfloat16_note(loaded.model.dtype, loaded.device),
            loaded.note,
            self.chosen.note,
        )
        return "; ".join(filter(None, notes))

    def model_info(self) -> ModelInfo:
        """Return a description of what really runs."""
        return self._loaded.model_info(self.chosen.name, self._attention_backend)

    def ledger(self) -> Ledger:
        """Return the memory ledger of this moment."""
        return self._memory.read(self._loop.kv_bytes())

    @cached_property
    def _memory(self) -> LedgerReader:
        # Created at the first use, because kernels that repack their weights at their first call
        # change which tensors exist.
        return LedgerReader(self._loaded.model, self._loaded.device, self._draft_model)

    def _score(
        self, prompt: list[int], request: ScoreTokens, cancelled: Callable[[], bool]
    ) -> TokenScores:
        return score_tokens(self._loaded, prompt, request, cancelled, self.chosen.rules)

    def _set_threads(self, threads: int) -> None:
        import torch

        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

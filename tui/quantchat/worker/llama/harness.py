"""Lets EleutherAI's lm-evaluation-harness use a llama.cpp model, as its `HFLM` does for torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.loop import common_prefix
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.failures import Refused
from quantchat.worker.llama.loop import Sampler
from quantchat.worker.llama.model import LlamaModel
from quantchat.worker.llama.teacher_forcing import log_softmax

_ROWS = 64
"""Positions whose logits exist at once."""
_MOST_TOKENS = 256
"""Longest answer in tokens if the task names none, as in the harness."""


class LlamaLM(TemplateLM):  # type: ignore[misc]
    """Answers the harness one question at a time. `variables` are those of the chat template."""

    def __init__(self, model: LlamaModel, variables: Mapping[str, Any]) -> None:
        super().__init__()
        self._model = model
        self._variables = variables
        self._context = model.context(outputs=_ROWS)
        self.tokenizer = model.tokenizer
        self.batch_size = 1

    @property
    def eot_token_id(self) -> int:
        """The token at the end of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        begin = self.tokenizer.bos_token_id
        return int(self.eot_token_id if begin is None else begin)

    @property
    def tokenizer_name(self) -> str:
        """A name for the cache of prompts."""
        return self._model.command.model

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of `string`, without special tokens unless asked for, as `HFLM`."""
        ids: list[int] = self.tokenizer(string, add_special_tokens=bool(add_special_tokens))[
            "input_ids"
        ]
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the text of the messages in the model's chat template."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        )

    # ------------------------------------------------------------ what the harness asks

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text."""
        del disable_tqdm
        found = []
        for request in requests:
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._model.context_length,
                context_len=1,
            )
            parts = [self._likelihood(*utils.make_disjoint_window(one))[0] for one in windows]
            found.append(sum(parts))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each prompt, up to the first of its stop sequences."""
        del disable_tqdm
        return [self._answer(*request.args) for request in requests]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = []
        for key, context, continuation in requests:
            found.append(self._likelihood(context, continuation))
            self.cache_hook.add_partial("loglikelihood", key, found[-1])
        return found

    # ------------------------------------------------------------ the model

    def _likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Return the log-likelihood of `continuation`, and whether it is the greedy one."""
        given = [*context, *continuation][-(self._model.context_length + 1) :][:-1]
        first = len(given) - len(continuation)
        # The logits of a token that is cached are gone: keep what lies before all that is needed.
        self._keep(given[: first + 1])
        for start in range(len(self._context.ids), first, CHUNK):
            self._context.run(given[start : min(start + CHUNK, first)])
        total, greedy = 0.0, True
        for start in range(first, len(given), _ROWS):
            block = given[start : start + _ROWS]
            self._context.run(block, wanted=len(block))
            wanted = continuation[start - first : start - first + len(block)]
            for row, token in zip(
                log_softmax(self._context.logits(len(block))), wanted, strict=True
            ):
                total += float(row[token])
                greedy = greedy and int(row.argmax()) == token
        return total, greedy

    def _answer(self, prompt: str, options: Mapping[str, Any]) -> str:
        settings = normalize_gen_kwargs(dict(options), _MOST_TOKENS)
        end = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        until = handle_stop_sequences(settings.pop("until", None), eos=end)
        most = int(settings.pop("max_gen_toks"))
        room = self._model.context_length - most
        if room < 1:
            raise Refused(
                "context_full",
                f"the task asks for answers of {most} tokens, the model takes"
                f" {self._model.context_length} with the prompt",
                "set a larger n_ctx, or limit max_gen_toks in the task",
            )
        ids = self.tok_encode(prompt)[-room:]
        sampling = Sampling(
            temperature=float(settings.get("temperature") or 0.0)
            if settings.get("do_sample")
            else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            top_k=int(settings.get("top_k") or 0),
        )
        text = self._generated(ids, sampling, most, until)
        self.cache_hook.add_partial("generate_until", (prompt, options), text)
        return text

    def _generated(self, ids: list[int], sampling: Sampling, most: int, until: list[str]) -> str:
        self._keep(ids)
        for start in range(len(self._context.ids), len(ids), CHUNK):
            self._context.run(ids[start : start + CHUNK])
        sampler = Sampler(sampling, self._context, ids, most)
        said: list[int] = []
        text = ""
        try:
            while len(said) < most and (token := sampler.choose()) not in self._model.end_tokens:
                said.append(token)
                text = self.tokenizer.decode(said, skip_special_tokens=True)
                if any(stop and stop in text for stop in until):
                    break
                self._context.run([token])
        finally:
            sampler.close()
        for stop in filter(None, until):
            text = text.split(stop)[0]
        return text

    def _keep(self, ids: list[int]) -> None:
        """Keep of the cache what `ids` begin with, but for the last of them."""
        self._context.cut(common_prefix(self._context.ids, ids))

"""Let lm-evaluation-harness use a model that is not a torch model: one question at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from quantchat.wire.messages import Sampling
from quantchat.worker.failures import Refused

_MOST_TOKENS = 256
"""Longest answer in tokens if the task sets no limit; the harness's own default."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """Used in place of the harness's `HFLM` for the model `name`.

    `tokenizer` has the methods of transformers' tokenizers; `variables` are those of its chat
    template. `context_length` is the most tokens of prompt and answer together.
    """

    def __init__(
        self, name: str, tokenizer: Any, variables: Mapping[str, Any], context_length: int
    ) -> None:
        super().__init__()
        self._name = name
        self._variables = variables
        self._context_length = context_length
        self.tokenizer = tokenizer
        self.batch_size = 1

    @property
    def eot_token_id(self) -> int:
        """The token at the end of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token to put before a text without context: BOS, or else the end token."""
        begin = self.tokenizer.bos_token_id
        return int(self.eot_token_id if begin is None else begin)

    @property
    def tokenizer_name(self) -> str:
        """A name that identifies the tokenizer in the harness's cache of prompts."""
        return self._name

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of `string`, by default without special tokens, like `HFLM`."""
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
        """Return the log-likelihood of each text, in nats."""
        del disable_tqdm
        found = []
        for request in requests:
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._context_length,
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

    def _answer(self, prompt: str, options: Mapping[str, Any]) -> str:
        settings = normalize_gen_kwargs(dict(options), _MOST_TOKENS)
        end = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        until = [one for one in handle_stop_sequences(settings.pop("until", None), eos=end) if one]
        most = int(settings.pop("max_gen_toks"))
        room = self._context_length - most
        if room < 1:
            raise Refused(
                "context_full",
                f"the task asks for answers of {most} tokens, but the model's context has"
                f" {self._context_length} for prompt and answer together",
                "set a larger n_ctx (engine gguf), or a smaller max_gen_toks in the task",
            )
        sampling = Sampling(
            temperature=float(settings.get("temperature") or 0.0)
            if settings.get("do_sample")
            else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            top_k=int(settings.get("top_k") or 0),
        )
        text = self._generated(self.tok_encode(prompt)[-room:], sampling, most, until)
        for stop in until:
            text = text.split(stop)[0]
        self.cache_hook.add_partial("generate_until", (prompt, options), text)
        return text

    # ------------------------------------------------------------ the model

    @abstractmethod
    def _likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Return the log-likelihood of `continuation`, and whether greedy decoding gives it.

        The log-likelihood is in nats. `context` has the tokens before `continuation`.
        """

    @abstractmethod
    def _generated(self, ids: list[int], sampling: Sampling, most: int, until: list[str]) -> str:
        """Return the answer to the prompt `ids`, at least up to the first stop sequence of `until`.

        The answer has at most `most` tokens.
        """

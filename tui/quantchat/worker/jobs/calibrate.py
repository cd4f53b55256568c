"""Calibration text in the model's own words: its answers to varied prompts, in its template.

GPTQ keeps best what calibration shows it, and chats by the model itself are nearer to its use than
any general text (the idea of data-free quantization: LLM-QAT, Liu et al. 2023).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.calibration_io import write
from quantchat.worker.jobs.calibration_size import calibration_size
from quantchat.worker.jobs.job_env import local_folder, refuse_quantized, settle, tokenizer_for
from quantchat.worker.jobs.layer_widths import check_groups, widest
from quantchat.worker.model.chat_template import as_wanted
from quantchat.worker.model.devices import choose_device
from quantchat.worker.model.loaded import choose_dtype, load_model

TEMPERATURE = 0.8
"""Of each answer to a prompt but the first, which is greedy."""

BATCH, GPU_BATCH = 16, 32
"""Prompts answered at a time on a CPU, and on a GPU, which takes hardly longer for more."""

ROUNDS = 6
"""How often a prompt is answered at most, about, where the number of samples is chosen here."""


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Let `model` answer `prompts`, and write `chats.jsonl` into the folder `output`.

    `samples` chats of at most `sample_tokens` answer tokens each, or where these are None as
    `calibration_size` has it: every prompt is answered greedily, then again with sampling (from
    `seed` on) until there are enough. What was said before to the same prompt is not kept twice,
    nor is silence. A line is `{"messages": [...]}`, or `{"text": ...}` of a model without a
    chat template.
    `device`, `dtype`, `revision`, `trusted` (to run the model's own code), and `tokenizer` and
    `chat_template_kwargs`, which may be left out, are as in a profile.
    Refused at once where the `group_size` that the chats are for does not fit the model.

    Result: `samples` written, and their `tokens`.
    """
    report(0, 0, "importing libraries")
    settle(options)
    import torch

    report(0, 0, "loading the model")
    options["model"] = local_folder(options, report)
    refuse_quantized(options["model"])
    device = choose_device(options["device"])
    author = _Author(options, device)
    check_groups(author.model, options.get("group_size", -1))
    torch.manual_seed(options["seed"])
    wanted = calibration_size(options, device, widest(author.model))
    author.longest = wanted.length
    chats: dict[str, int] = {}  # keeps their order

    def tell(more: int) -> None:
        count = len(chats) + more
        if wanted.tokens:
            tokens = min(sum(chats.values()), wanted.tokens)
            report(tokens, wanted.tokens, f"tokens, in {count} chats")
        else:
            report(min(wanted.samples, count), wanted.samples, "")

    most = ROUNDS * len(options["prompts"]) if wanted.tokens else wanted.samples
    size = GPU_BATCH if device.startswith("cuda") else BATCH
    for prompts, sampled in _batches(options["prompts"], most, size):
        missing = wanted.samples - len(chats)
        if missing <= 0 and sum(chats.values()) >= wanted.tokens:
            break
        chats |= author.answer(prompts if wanted.tokens else prompts[:missing], sampled, tell)
    if not chats:
        raise Refused("unsupported", "the model said nothing to any calibration prompt")
    records = map(json.loads, chats)
    return write(records, author.tokenizer, Path(options["output"]), author.template)


def _batches(prompts: list[str], samples: int, size: int) -> Iterator[tuple[list[str], bool]]:
    """Yield prompts to answer, and whether by sampling; ends, even if the answers all repeat."""
    rounds = -(-samples // len(prompts)) + 2
    for turn in range(rounds):
        for start in range(0, len(prompts), size):
            yield prompts[start : start + size], turn > 0


class _Author:
    """The model, as the writer of chats."""

    def __init__(self, options: dict[str, Any], device: str) -> None:
        # First, since loading the model takes longer.
        self.tokenizer = tokenizer_for(options, options["model"], padding_side="left")
        load = Load(
            "transformers",
            options["model"],
            {},
            device=options["device"],
            trust_remote_code=options["trusted"],
        )
        self.model = load_model(load, device, dtype=choose_dtype(options["dtype"])).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.template: dict[str, Any] = options.get("chat_template_kwargs", {})
        self.longest = 0
        """Answer in tokens."""
        self._at_once = sys.maxsize
        ends = self.model.generation_config.eos_token_id
        ids = ends if isinstance(ends, list) else [ends]
        # The tokenizer's own too, as in a chat: a template that is lent has another end of a turn.
        self._ends = sorted({i for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

    def answer(
        self, prompts: list[str], sampled: bool, tell: Callable[[int], None]
    ) -> dict[str, int]:
        """Return a line of JSON for each of `prompts` that the model had something to say to.

        With each the tokens of the answer. `tell` is called with the number of answers that have
        ended, each time it grows. Where the GPU is too small for all at once it takes fewer.
        """
        import torch

        found: dict[str, int] = {}
        while prompts:
            some = prompts[: self._at_once]

            def heard(ended: int, before: int = len(found)) -> None:
                tell(before + ended)

            try:
                found |= self._answered(some, sampled, heard)
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._at_once = len(some) // 2
            else:
                prompts = prompts[len(some) :]
                continue
            torch.cuda.empty_cache()  # here, where the error does not hold on to its tensors
        return found

    def _answered(
        self, prompts: list[str], sampled: bool, tell: Callable[[int], None]
    ) -> dict[str, int]:
        import torch

        plain = not self.tokenizer.chat_template
        texts = prompts
        if not plain:
            said = [[{"role": "user", "content": prompt}] for prompt in prompts]
            chats = [as_wanted(self.tokenizer, chat) for chat in said]
            texts = self.tokenizer.apply_chat_template(
                chats, tokenize=False, add_generation_prompt=True, **self.template
            )
        batch = self.tokenizer(
            texts,
            add_special_tokens=plain,  # a template writes them itself
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        asked = batch["input_ids"].shape[1]
        ends = torch.tensor(self._ends)
        ended = 0

        def watch(ids: Any, _scores: Any, **_more: Any) -> Any:
            nonlocal ended
            over = int(torch.isin(ids[:, asked:].cpu(), ends).any(dim=1).sum())
            if over > ended:
                ended = over
                tell(ended)
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        how = {"temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0} if sampled else {}
        with torch.inference_mode():
            written = self.model.generate(
                **batch,
                **how,
                do_sample=sampled,
                max_new_tokens=self.longest,
                eos_token_id=self._ends or None,
                stopping_criteria=[watch],
            )[:, asked:]
        tell(len(prompts))
        answers = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return {
            _line(prompt, answer, plain): self._tokens(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
            if answer.strip()
        }

    def _tokens(self, answer: str) -> int:
        return len(self.tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"])


def _line(prompt: str, answer: str, plain: bool) -> str:
    if plain:
        return json.dumps({"text": prompt + answer})
    chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": chat})

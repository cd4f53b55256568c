"""Builds calibration text from the model's own answers to varied prompts, in its chat template.

GPTQ loses least on text like its calibration set, and the model's own answers are closer to what it
will generate than any general text (data-free quantization: LLM-QAT, Liu et al. 2023).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import CalibrateJob, CalibrateResult
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.calibration_io import write
from quantchat.worker.jobs.calibration_size import calibration_size
from quantchat.worker.jobs.job_env import (
    prepare_process,
    tokenizer_for,
    with_local_files,
)
from quantchat.worker.jobs.layer_widths import check_groups, widest
from quantchat.worker.model.chat_template import with_content_form
from quantchat.worker.model.devices import choose_device
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.model.loaded import choose_dtype, load_model
from quantchat.worker.report import Report

TEMPERATURE = 0.8
"""Sampling temperature of all answers to a prompt except the first, which is greedy."""

BATCH, GPU_BATCH = 16, 32
"""Number of prompts answered at once on a CPU and on a GPU; a GPU hardly slows down with more."""

_MOST_ANSWERS = 6
"""Approximate largest number of answers to each prompt, if `calibration_size` decides how many
samples are needed."""


def run(job: CalibrateJob, report: Report) -> CalibrateResult:
    """Let the model answer the prompts, and write these chats into the output folder.

    The model answers every prompt greedily, then again with sampling until there are enough chats.
    Equal answers to one prompt count once, empty answers not at all. A chat is written as
    `{"messages": [...]}`, or as `{"text": ...}` for a model without a chat template. Raises Refused
    if the model is quantized, or if the group size does not divide the width of its layers.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    import torch

    report(0, 0, "loading the model")
    load = with_local_files(job.load, report)
    refuse_quantized(load.model)
    device = choose_device(load.device)
    author = _Author(load, device)
    check_groups(author.model, job.group_size)
    torch.manual_seed(job.seed)
    inputs = widest(author.model)
    wanted = calibration_size(job.samples, job.sample_tokens, device, inputs)
    author.longest = wanted.length
    # Key: a chat as a line of JSON; value: number of tokens of its answer.
    chats: dict[str, int] = {}

    def tell(more: int) -> None:
        count = len(chats) + more
        if wanted.tokens:
            tokens = min(sum(chats.values()), wanted.tokens)
            report(tokens, wanted.tokens, f"tokens, in {count} chats")
        else:
            report(min(wanted.samples, count), wanted.samples, "")

    most = _MOST_ANSWERS * len(job.prompts) if wanted.tokens else wanted.samples
    size = GPU_BATCH if device.startswith("cuda") else BATCH
    for prompts, sampled in _batches(job.prompts, most, size):
        missing = wanted.samples - len(chats)
        if missing <= 0 and sum(chats.values()) >= wanted.tokens:
            break
        chats |= author.answer(prompts if wanted.tokens else prompts[:missing], sampled, tell)
    if not chats:
        raise Refused("unsupported", "the model gave no answer to any calibration prompt")
    records = map(json.loads, chats)
    return write(records, author.tokenizer, Path(job.workspace.output), author.template)


def _batches(prompts: list[str], samples: int, size: int) -> Iterator[tuple[list[str], bool]]:
    """Yield batches of at most `size` prompts to answer, and whether to sample the answers.

    A round yields all prompts. There are two rounds more than `samples` answers need, because equal
    answers count once. After these rounds the iterator ends, even if there are too few answers.
    """
    rounds = -(-samples // len(prompts)) + 2
    for number in range(rounds):
        for start in range(0, len(prompts), size):
            yield prompts[start : start + size], number > 0


class _Author:
    """Generates chats: lets the model answer prompts in batches."""

    def __init__(self, load: LoadModel, device: str) -> None:
        # Loaded before the model, so that a broken tokenizer is found early.
        self.tokenizer = tokenizer_for(load, padding_side="left")
        self.model = load_model(load, device, dtype=choose_dtype(load.dtype)).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.template = load.template_variables
        self.longest = 0
        """Most tokens of an answer."""
        self._batch_size = sys.maxsize
        ends = self.model.generation_config.eos_token_id
        ids = ends if isinstance(ends, list) else [ends]
        # As in a chat, the tokenizer's end token ends an answer too: the chat template that a
        # profile names may end turns with another token than the model's own end tokens.
        self._end_tokens = sorted({i for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

    def answer(
        self, prompts: list[str], sampled: bool, tell: Callable[[int], None]
    ) -> dict[str, int]:
        """Return the chats as lines of JSON, each with its answer's length in tokens.

        A prompt with an empty answer is left out. Calls `tell` with the number of finished answers
        each time it grows. If GPU memory runs out, answers fewer prompts at once.
        """
        import torch

        found: dict[str, int] = {}
        while prompts:
            some = prompts[: self._batch_size]

            def answers_ended(ended: int, before: int = len(found)) -> None:
                tell(before + ended)

            try:
                found |= self._answered(some, sampled, answers_ended)
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._batch_size = len(some) // 2
            else:
                prompts = prompts[len(some) :]
                continue
            # This is not done in `except`, where the error still refers to tensors.
            torch.cuda.empty_cache()
        return found

    def _answered(
        self, prompts: list[str], sampled: bool, tell: Callable[[int], None]
    ) -> dict[str, int]:
        import torch

        has_template = bool(self.tokenizer.chat_template)
        texts = prompts
        if has_template:
            messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
            chats = [with_content_form(self.tokenizer, chat) for chat in messages]
            texts = self.tokenizer.apply_chat_template(
                chats, tokenize=False, add_generation_prompt=True, **self.template
            )
        batch = self.tokenizer(
            texts,
            add_special_tokens=not has_template,  # a chat template itself adds them
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        prompt_length = batch["input_ids"].shape[1]
        ends = torch.tensor(self._end_tokens)
        ended = 0

        def count_ended(ids: Any, _scores: Any, **_more: Any) -> Any:
            nonlocal ended
            over = int(torch.isin(ids[:, prompt_length:].cpu(), ends).any(dim=1).sum())
            if over > ended:
                ended = over
                tell(ended)
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        sampling = {"temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0} if sampled else {}
        with torch.inference_mode():
            written = self.model.generate(
                **batch,
                **sampling,
                do_sample=sampled,
                max_new_tokens=self.longest,
                eos_token_id=self._end_tokens or None,
                stopping_criteria=[count_ended],
            )[:, prompt_length:]
        tell(len(prompts))
        answers = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return {
            _line(prompt, answer, has_template): self._tokens(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
            if answer.strip()
        }

    def _tokens(self, answer: str) -> int:
        return len(self.tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"])


def _line(prompt: str, answer: str, has_template: bool) -> str:
    if not has_template:
        return json.dumps({"text": prompt + answer})
    chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": chat})

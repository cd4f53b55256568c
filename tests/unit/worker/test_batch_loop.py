"""In a batch each prompt gets the same tokens as alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fakes.tiny_llama import VOCABULARY, loaded, tiny_llama
from quantchat.wire.jobs import BatchJob, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.batch_loop import BatchLoop
from quantchat.worker.decode.check import Check
from quantchat.worker.jobs import batches

CPU = torch.device("cpu")
OUTPUT = 6


def prompt(row: int, tokens: int) -> list[int]:
    return [(row * 17 + place * 5) % VOCABULARY for place in range(tokens)]


def alone(model: Any, ids: list[int]) -> list[int]:
    """The greedy tokens after `ids`, each from a pass without a cache."""
    found: list[int] = []
    with torch.inference_mode():
        for _ in range(OUTPUT):
            logits = model(torch.tensor([ids + found]), use_cache=False).logits
            found.append(int(logits[0, -1].argmax()))
    return found


@pytest.mark.parametrize(
    "lengths",
    [[5], [9, 9, 9], [4, 12, 1, 30], [600, 20]],
    ids=["one", "equal", "mixed", "longer than a prefill step"],
)
@pytest.mark.parametrize("more", [{}, {"sliding_window": 8}], ids=["full", "sliding"])
def test_each_prompt_gets_what_it_gets_alone(lengths: list[int], more: dict[str, Any]) -> None:
    if more:
        from transformers import MistralConfig, MistralForCausalLM

        from fakes.tiny_llama import SIZES

        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(**{**SIZES, **more})).eval()
    else:
        model = tiny_llama()
    prompts = [prompt(row, count) for row, count in enumerate(lengths)]
    expected = [alone(model, ids) for ids in prompts]
    loop = BatchLoop(model, CPU, Check(loaded(model)).fault)
    batch = loop.decode(prompts, OUTPUT)
    assert batch.tokens == expected
    assert loop.name == "static batch, eager, direct kernel calls"
    assert len(batch.steps_ns) == OUTPUT - 1
    assert batch.kv_bytes > 0


@pytest.mark.parametrize(
    ("mixed", "expected"), [(False, [100] * 4), (True, [25, 50, 75, 100])], ids=["same", "mixed"]
)
def test_lengths_of_the_prompts(mixed: bool, expected: list[int]) -> None:
    assert batches.lengths(4, 100, mixed=mixed) == expected
    assert batches.lengths(1, 100, mixed=mixed) == [100]


def test_a_batch_that_does_not_fit_ends_the_larger_ones(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(BatchLoop):
        def decode(self, prompts: Any, output_tokens: int) -> Any:
            if len(prompts) > 2:
                raise RuntimeError("can't allocate memory: you tried to allocate 99 bytes")
            return super().decode(prompts, output_tokens)

    model = loaded(model_info=lambda decode: f"resolved {decode}")
    monkeypatch.setattr(batches, "Loaded", type(model))
    monkeypatch.setattr(batches, "BatchLoop", Full)
    monkeypatch.setattr(batches, "load_or_refuse", lambda load, report: model)
    monkeypatch.setattr(batches, "prepare_process", lambda workspace, background: None)
    told: list[str] = []
    batches.run(
        BatchJob(
            model=LoadModel("transformers", "tiny", {}),
            batches=[1, 2, 4, 8],
            prompt_tokens=12,
            output_tokens=3,
            mixed=True,
            rounds=2,
            workspace=Workspace(str(tmp_path), str(tmp_path)),
        ),
        lambda done, total, detail: told.append(detail),
    )
    import json

    rounds = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [one["batch"] for one in rounds] == [1, 2, 4, 1, 2]
    assert [bool(one["failure"]) for one in rounds] == [False, False, True, False, False]
    assert rounds[1]["prompt_tokens"] == [3, 12]
    assert "batch of 8" not in told

"""The screen warns before loading that the pair will not fit into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import SIZES, Setup
from fakes.scripted_machine import GPU, with_memory
from quantchat.measuring import memory_plan
from quantchat.profile.model import Profile

GIB = 2**30


@pytest.fixture
def llama(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Llama 2 7B on the GPU: GPTQ beside NF4, whose base of 13.5 GB is on the disk."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    base = write_model(tmp_path / "base", LLAMA_2_7B, llama_tensors(LLAMA_2_7B), shards=2)
    config = {**LLAMA_2_7B, "quantization_config": {"bits": 4, "group_size": 128}}
    made = write_model(tmp_path / "gptq", config, gptq_tensors(LLAMA_2_7B, 4, 128))
    setup.profile = Profile.model_validate(
        {
            "name": "Llama",
            "variants": [
                {"label": "GPTQ", "engine": "gptq", "model": str(made), "device": "cuda"},
                {"label": "NF4", "engine": "bitsandbytes", "model": str(base), "device": "cuda"},
            ],
            "generation": {"max_new_tokens": 1000},
        }
    )
    return setup


@pytest.mark.parametrize("size", SIZES)
async def test_a_pair_that_does_not_fit_is_warned_of(llama: Setup, size: tuple[int, int]) -> None:
    llama.gpus = (with_memory(GPU, 20 * GIB),)
    async with llama.running(size) as run:
        await see(run.pilot, "The two variants may not fit")
        await see(run.pilot, "4.0 GiB are free")
        assert run.screen.device is not None
        said = memory_plan.warning(llama.profile, run.screen.device)
        assert said is not None
        (shown,) = [one.message for one in run.app._notifications]
        assert shown == said  # the figures of `quantchat plan`, and no others


async def test_a_pair_that_fits_is_not_spoken_of(
    llama: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    warning = memory_plan.warning

    def heard(*given: object) -> str | None:
        asked.append(warning(*given))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(memory_plan, "warning", heard)
    llama.gpus = (with_memory(GPU, 2 * GIB),)
    async with llama.running() as run:
        await run.ready()
        await wait_until(run.pilot, lambda: asked == [None], "the plan is made")
        await run.answered()
        assert "may not fit" not in text(run.app)

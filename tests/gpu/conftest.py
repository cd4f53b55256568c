"""Requirements of the GPU tests; on a machine without them the tests skip with a reason."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from quantchat.system.sampler import DeviceSampler

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def torch() -> Any:
    """torch, where it has a CUDA device."""
    no_gpu = DeviceSampler().sample().no_gpu
    if no_gpu:
        pytest.skip(no_gpu)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch


@pytest.fixture(scope="session")
def random_models(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a small Llama with random weights, by engine.

    For what does not depend on the weights: made in a second, on a machine without a network too.
    """
    folder = tmp_path_factory.mktemp("random")
    base, gptq = folder / "base", folder / "gptq"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        shapes = importlib.import_module("llama7b.shapes")
        for made in (base, gptq):
            made.mkdir()
        shapes.write_dense(base, shapes.SHAPES["small"])
        shapes.write_gptq(gptq, shapes.SHAPES["small"], bits=4, group=128)
    return {"bitsandbytes": base, "transformers": base, "gptq": gptq}

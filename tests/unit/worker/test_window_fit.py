"""The longest window that text, context and memory allow, and what it is limited by."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.tiny_folder import tiny_folder
from quantchat.wire.jobs import Fit, ScoreJob, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import score
from quantchat.worker.scoring.window_fit import LEAST, activation_bytes


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "prepare_process", lambda workspace: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; one letter is one token."""
    return tiny_folder(tmp_path_factory.mktemp("models") / "model")


def scored(model: Path, output: Path, letters: int, **more: Any) -> Any:
    text = output / "text"
    text.write_text("abcdefgh" * (letters // 8), encoding="utf-8")
    return score.run(
        ScoreJob(
            load=LoadModel("transformers", str(model), {}, device="cpu"),
            text=str(text),
            workspace=Workspace(str(output), str(output)),
            **{"window": 512, "stride": 512, "fit": Fit(), **more},
        ),
        lambda *_: None,
    )


def test_a_window_that_fits_is_taken_as_asked(model: Path, tmp_path: Path) -> None:
    result = scored(model, tmp_path, 1200, window=500, stride=500)
    assert (result.window, result.window_limit) == (500, "")


def test_a_short_text_shortens_the_windows_to_a_power_of_two(model: Path, tmp_path: Path) -> None:
    result = scored(model, tmp_path, 304)
    assert (result.window, result.context, result.positions) == (256, 129, 127)
    assert result.window_limit == "the text has 304 tokens"
    with pytest.raises(Refused, match=f"less than one window of {LEAST}"):
        scored(model, tmp_path, 64)


def test_the_context_of_the_model_shortens_the_windows(model: Path, tmp_path: Path) -> None:
    result = scored(model, tmp_path, 20000, window=2**20, stride=2**20)
    assert result.window <= result.model_info.context_length < 20000
    assert result.window_limit == f"the model takes {result.model_info.context_length}"


def test_little_memory_shortens_the_windows(model: Path, tmp_path: Path) -> None:
    result = scored(model, tmp_path, 1200, fit=Fit(memory=1))
    assert result.window == LEAST
    assert result.window_limit == "0.0 GiB of memory are free"
    assert scored(model, tmp_path, 1200, fit=Fit(memory=2**40, eager=True)).window == 512


def test_eager_attention_and_whole_logits_need_more_memory() -> None:
    config = SimpleNamespace(hidden_size=4096, intermediate_size=11008, num_attention_heads=32)
    plain = activation_bytes(4096, config, 0, eager=False)
    assert plain == 4096 * 4 * (8 * 4096 + 3 * 11008)
    assert activation_bytes(4096, config, 0, eager=True) - plain == 10 * 32 * 4096**2
    assert activation_bytes(4096, config, 256_000, eager=False) - plain == 8 * 4096 * 256_000


def test_early_tokens_are_compared_for_the_depths_alone(model: Path, tmp_path: Path) -> None:
    import numpy

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    base = scored(model, first, 512, window=256, stride=256, depths=True, keep="ref", copies=1)
    assert (first / "ref").stat().st_size == 2 * 255 * base.vocabulary * 2
    more = {"depths": True, "against": {"ref": str(first / "ref")}}
    result = scored(model, second, 512, window=256, stride=256, **more)
    sizes = {
        name: len(numpy.fromfile(second / name))
        for name in ("nll", "ref.forward", "ref.early.forward", "ref.early.backward")
    }
    assert sizes["nll"] == sizes["ref.forward"] == result.positions == 2 * 127
    assert sizes["ref.early.forward"] == sizes["ref.early.backward"] == 2 * 128
    early = numpy.fromfile(second / "ref.early.forward")
    assert math.isclose(float(early.mean()), 0.0, abs_tol=1e-6)  # the same model

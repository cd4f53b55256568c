"""LoRA adapters: on the model to the last tensor, in every loop, or refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes.tiny_folder import tiny_folder
from fakes.tiny_llama import tiny_llama
from quantchat.profile.load import loads
from quantchat.worker.decode.kernels import product
from quantchat.worker.decode.modes import choose
from quantchat.worker.decode.steps.llama import llama_step
from quantchat.worker.engines import load
from quantchat.worker.engines.adapter import CONFIG, WEIGHTS, attach
from quantchat.worker.engines.loaded import Loaded
from quantchat.worker.failures import Refused
from quantchat.worker.protocol import Load

peft = pytest.importorskip("peft", reason="peft is not installed")

TARGETS = ["q_proj", "v_proj", "down_proj"]


def adapter_in(folder: Path, *, scale: float = 1.0, targets: list[str] | None = None) -> Path:
    """An adapter for the tiny Llama, trained on nothing: random weights in both of its factors."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=targets or TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny_llama(), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    model.save_pretrained(folder)
    return folder


def merged(adapter: Path) -> Any:
    """The tiny Llama with `adapter` merged into its weights, by PEFT."""
    return peft.PeftModel.from_pretrained(tiny_llama(), str(adapter)).merge_and_unload()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tiny_folder(tmp_path / "model", scale=1.0), adapter_in(tmp_path / "adapter")


def command(model: Path, adapter: Path | None, **more: Any) -> Load:
    options = {"adapter": str(adapter)} if adapter else {}
    return Load(
        engine="transformers", model=str(model), revision=None, options=options, dtype="float32",
        device="cpu", attention="auto", decode="auto", trust_remote_code=False, **more,
    )  # fmt: skip


def loaded(model: Path, adapter: Path | None) -> Loaded:
    return load(command(model, adapter), lambda stage: None)


@pytest.mark.parametrize("decode", ["generate", "eager", "auto", "compile"])
def test_every_loop_computes_it(folders: tuple[Path, Path], decode: str) -> None:
    model, adapter = folders
    worn = loaded(model, adapter)
    assert worn.kernel == "not quantized + LoRA r4 on down_proj, q_proj, v_proj"
    loop = choose(worn, decode, lambda stage: None).loop
    prompt = torch.arange(40) % 90

    said = greedy(loop, prompt.tolist())
    expected = merged(adapter)
    with torch.inference_mode():
        whole = expected.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt[None]),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=[-1],
            pad_token_id=0,
        )
    assert said == whole[0, 40:].tolist()
    # And it is the adapter that makes the difference.
    assert said != greedy(
        choose(loaded(model, None), "eager", lambda stage: None).loop, prompt.tolist()
    )


def greedy(loop: Any, prompt: list[int]) -> list[int]:
    from quantchat.worker.decode.turn import Turn
    from quantchat.worker.protocol import Sampling

    heard: list[int] = []

    class Ear:
        def send(self, event: Any) -> None:
            pass

        def token(self, token: int, _time_ns: int) -> None:
            heard.append(token)

    loop.forget()
    loop.rewind(prompt)
    loop.answer(prompt, Turn(1, Sampling(), 24, frozenset(), Ear(), lambda turn: False))  # type: ignore[arg-type]
    return heard


def test_no_direct_call_leaves_it_out(tmp_path: Path) -> None:
    # So faint that the check of the logits would take it for rounding.
    model = tiny_llama()
    assert llama_step(model) is not None
    model = tiny_llama()
    attach(model, str(adapter_in(tmp_path, scale=1e-6, targets=["q_proj"])))
    assert llama_step(model) is None
    assert product([model.model.layers[0].self_attn.q_proj]) is None


def test_what_is_resolved_and_recorded(folders: tuple[Path, Path]) -> None:
    model, adapter = folders
    told = loaded(model, adapter).resolved("eager")
    assert told.adapter == str(adapter) and len(told.adapter_hash) == 64
    plain = loaded(model, None).resolved("eager")
    assert (plain.adapter, plain.adapter_hash) == ("", "")
    # A rank of 4 for each of the three blocks: (64 + 64), (64 + 32) and (96 + 64) rows.
    assert told.parameters - plain.parameters == 3 * 4 * (128 + 96 + 160)


def broken(change: Callable[[Path], None]) -> Any:
    return pytest.param(change, id=change.__name__)


def no_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut_short(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def no_json(folder: Path) -> None:
    (folder / CONFIG).write_text("{")


def another_kind(folder: Path) -> None:
    change(folder, peft_type="PROMPT_TUNING")


def no_such_module(folder: Path) -> None:
    change(folder, target_modules=["c_attn"])


def fewer_modules(folder: Path) -> None:
    change(folder, target_modules=["q_proj"])


def another_rank(folder: Path) -> None:
    change(folder, r=8)


def change(folder: Path, **values: Any) -> None:
    body = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**body, **values}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_config, "there is no adapter_config.json"),
        (no_weights, "there is no adapter_model.safetensors"),
        (pickled, "its weights are pickled: opening them could run any code"),
        (cut_short, "adapter_model.safetensors is cut short"),
        (no_json, "adapter_config.json is no JSON, or cut short"),
        (another_kind, "it is of the kind PROMPT_TUNING"),
        (no_such_module, "it does not fit this model"),
        (fewer_modules, "it does not fit this model"),
        (another_rank, "it does not fit this model"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(adapter_in(tmp_path))
    with pytest.raises(Refused) as refused:
        attach(tiny_llama(), str(tmp_path))
    failure = refused.value.failure
    assert said in failure.reason and failure.mend
    assert "\n" not in failure.reason


def test_one_for_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it does not fit this model, it was made for"):
        attach(tiny_llama(hidden_size=32), str(adapter_in(tmp_path)))


def test_a_profile_names_it_from_its_own_folder(tmp_path: Path) -> None:
    variant = '[[variants]]\nlabel = "{}"\nengine = "{}"\nmodel = "org/m"\nadapter = "{}"\n'
    text = 'name = "p"\n' + variant.format("a", "bitsandbytes", "./lora")
    profile = loads(
        text + variant.format("b", "gptq", "org/lora@v1"), where="p.toml", folder=tmp_path
    )
    adapters = [v.options["adapter"] for v in profile.variants]
    assert adapters == [str(tmp_path / "lora"), "org/lora@v1"]
    with pytest.raises(Exception, match=r"adapter: must be a folder, which begins with"):
        loads(text + variant.format("b", "gptq", "my lora"), where="p.toml", folder=tmp_path)

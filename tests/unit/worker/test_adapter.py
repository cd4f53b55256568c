"""LoRA adapters: applied to every tensor, in each decode loop, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError

from fakes.tiny_adapter import adapter_in
from fakes.tiny_folder import tiny_folder
from fakes.tiny_llama import tiny_llama
from quantchat.common.adapter_folder import CONFIG, WEIGHTS
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.variant import merged_adapter
from quantchat.profile.load import loads
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Profile
from quantchat.wire.jobs import MergeAdapterJob, MergedAdapter, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.cpu.kernels import product
from quantchat.worker.decode.cpu.llama_step import llama_step
from quantchat.worker.decode.modes import choose
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import merge_adapter
from quantchat.worker.loaders import load
from quantchat.worker.model.adapter import attach, check_adapter, merge
from quantchat.worker.model.loaded import Loaded

peft = pytest.importorskip("peft", reason="peft is not installed")


def merged(adapter: Path) -> Any:
    """The tiny Llama with `adapter` merged into its weights, by PEFT alone."""
    return peft.PeftModel.from_pretrained(tiny_llama(), str(adapter)).merge_and_unload()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tiny_folder(tmp_path / "model", scale=1.0), adapter_in(tmp_path / "adapter")


def command(model: Path, adapter: Path | None, **more: Any) -> LoadModel:
    options = {"adapter": str(adapter)} if adapter else {}
    return LoadModel(
        engine="transformers", model=str(model), revision=None, options=options, dtype="float32",
        device="cpu", attention="auto", decode="auto", trust_remote_code=False, **more,
    )  # fmt: skip


def loaded(model: Path, adapter: Path | None) -> Loaded:
    return load(command(model, adapter), lambda stage: None)


@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize("decode", ["generate", "eager", "auto", "compile"])
def test_every_loop_computes_it(folders: tuple[Path, Path], decode: str) -> None:
    model, adapter = folders
    adapted = loaded(model, adapter)
    assert adapted.kernel == "not quantized + LoRA r4 on down_proj, q_proj, v_proj"
    loop = choose(adapted, decode, lambda stage: None).loop
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
    from quantchat.wire.messages import Sampling
    from quantchat.worker.decode.loop import RunningAnswer

    heard: list[int] = []

    class Ear:
        def send(self, event: Any) -> None:
            pass

        def token(self, token: int, _time_ns: int) -> None:
            heard.append(token)

    loop.forget()
    loop.rewind(prompt)
    loop.answer(prompt, RunningAnswer(1, Sampling(), 24, frozenset(), Ear(), lambda turn: False))  # type: ignore[arg-type]
    return heard


def test_no_direct_call_leaves_it_out(tmp_path: Path) -> None:
    # So faint that the check of the logits would take it for rounding.
    model = tiny_llama()
    assert llama_step(model) is not None
    model = tiny_llama()
    attach(model, check_adapter(str(adapter_in(tmp_path, scale=1e-6, targets=["q_proj"]))))
    assert llama_step(model) is None
    assert product([model.model.layers[0].self_attn.q_proj]) is None


def test_what_is_resolved_and_recorded(folders: tuple[Path, Path]) -> None:
    model, adapter = folders
    told = loaded(model, adapter).model_info("eager")
    assert told.adapter == str(adapter) and len(told.adapter_hash) == 64
    plain = loaded(model, None).model_info("eager")
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
        (no_json, "adapter_config.json is not JSON, or is cut short"),
        (another_kind, "it is not a LoRA adapter but PROMPT_TUNING"),
        (no_such_module, "does not fit this model"),
        (fewer_modules, "does not fit this model"),
        (another_rank, "does not fit this model"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(adapter_in(tmp_path))
    for put in (attach, merge):  # the same reasons, wherever it goes
        with pytest.raises(Refused) as refused:
            put(tiny_llama(), check_adapter(str(tmp_path)))
        failure = refused.value.failure
        assert said in failure.reason and failure.hint
        assert "\n" not in failure.reason and "ignore_mismatched_sizes" not in failure.reason


@pytest.mark.parametrize("put", [attach, merge])
def test_one_for_another_size_is_refused(tmp_path: Path, put: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(Refused, match=r"it was made for .* and does not fit this model"):
        put(tiny_llama(hidden_size=32), check_adapter(str(adapter_in(tmp_path))))


def merge_job(model: Path, adapter: Path | str, place: Path) -> MergedAdapter:
    """Run the job in this process, which keeps its folder and its priority."""
    (place / "output").mkdir(parents=True)
    load = LoadModel("transformers", str(model), {}, device="cpu")
    job = MergeAdapterJob(load, str(adapter), Workspace(str(place), str(place / "output")))
    return merge_adapter.run(job, lambda *step: None).adapter


@pytest.fixture
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_adapter, "prepare_process", lambda workspace: None)


def test_merged_it_says_what_it_says_beside_the_weights(
    folders: tuple[Path, Path], tmp_path: Path, unprepared: None
) -> None:
    model, adapter = folders
    told = merge_job(model, adapter, tmp_path)
    assert told.kind == "LoRA r4 on down_proj, q_proj, v_proj"
    assert told.sha256 == loaded(model, adapter).model_info("eager").adapter_hash
    one = loaded(tmp_path / "output", None)
    assert (
        one.kernel == "not quantized"
        and one.tokenizer.vocab_size == loaded(model, None).tokenizer.vocab_size
    )
    ids = torch.arange(40)[None] % 90
    with torch.inference_mode():
        found, expected = one.model(ids).logits, merged(adapter)(ids).logits
        beside, base = (
            loaded(model, adapter).model(ids).logits,
            loaded(model, None).model(ids).logits,
        )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, beside, rtol=1e-3, atol=1e-3)
    assert (found - base).abs().mean() > 0.1  # and it is the adapter that makes the difference


def test_what_is_quantized_takes_no_adapter(
    folders: tuple[Path, Path], tmp_path: Path, unprepared: None
) -> None:
    model, adapter = folders
    config = json.loads((model / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "gptq"}}
    (model / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(Refused, match=r"already quantized \(gptq\)"):
        merge_job(model, adapter, tmp_path)


def test_what_the_hub_does_not_give_is_one_line(
    folders: tuple[Path, Path], tmp_path: Path, unprepared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def nothing(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    for put in (
        lambda: merge_job(folders[0], "org/lora@v1", tmp_path),
        lambda: load(command(folders[0], Path("org/lora@v1")), lambda stage: None),
    ):
        with pytest.raises(Refused) as refused:
            put()
        failure = refused.value.failure
        assert failure.reason == "cannot download the adapter org/lora from the hub: no network"
        assert failure.hint


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


def a_variant(**more: Any) -> list[str]:
    """The mistakes of a profile with a variant of these keys, as lines."""
    plain = {"label": "b", "engine": "transformers", "model": "org/m"}
    try:
        Profile.model_validate({"name": "p", "variants": [{"label": "a", **more}, plain]})
    except ValidationError as error:
        return [one.what for one in mistakes(error)]
    return []


def test_merged_or_beside_and_never_both() -> None:
    beside = BitsAndBytes(label="a", engine="bitsandbytes", model="org/m", adapter="org/lora")
    assert (beside.options["adapter"], merged_adapter(beside)) == ("org/lora", None)
    inside = beside.model_copy(update={"merge_adapter": True})
    assert merged_adapter(inside) == "org/lora"
    assert not {"adapter", "merge_adapter"} & set(inside.options)  # the engine puts none on it


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": "transformers"}, "merge_adapter needs an `adapter`"),
        ({"engine": "gptq", "adapter": "org/l"}, "needs a model that is quantized here"),
        (
            {"engine": "transformers", "adapter": "org/l", "gguf_file": "m.gguf"},
            "and does not work with gguf_file",
        ),
    ],
)
def test_what_cannot_be_merged_is_a_mistake(keys: dict[str, Any], said: str) -> None:
    (mistake,) = a_variant(model="org/m", merge_adapter=True, **keys)
    assert said in mistake
    assert not a_variant(model="org/m", **keys)


def test_what_is_quantized_here_may_have_it_merged_first() -> None:
    keys = {"engine": "gptq", "adapter": "org/l", "quantize": {}, "merge_adapter": True}
    assert not a_variant(model="org/m", **keys)

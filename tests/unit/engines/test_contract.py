"""The contract that every registered engine must fulfil."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import saved_snapshots
from fakes.gguf_file import write_gguf
from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from fakes.printed_document import printed
from quantchat.checkpoints.provider import PreparedModel
from quantchat.checkpoints.variant_files import files_to_load
from quantchat.engines.engine import Engine
from quantchat.engines.memory import estimate
from quantchat.engines.registry import baseline, engine_of, engines
from quantchat.engines.table import inner_tables
from quantchat.features.memory_plan.tables import blocks
from quantchat.measuring.memory_plan import make_plan
from quantchat.profile.load import loads
from quantchat.profile.model import AnyVariant, Profile
from quantchat.profile.toml_out import to_toml
from quantchat.session.from_models import files_of
from quantchat.session.reference import reference_of
from quantchat.session.requests import load_request
from quantchat.snapshot import store
from quantchat.wire.messages import LoadModel
from quantchat.wire.protocol import decode_command, encode
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import loader_of

SMALL = {
    **LLAMA_2_7B,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64}

each_engine = pytest.mark.parametrize("engine", engines().values(), ids=engines())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "cache" / "environments" / "auto-gptq"
    made.mkdir(parents=True)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", SMALL, llama_tensors(SMALL))


def profile_with(engine: Engine[Any], base: Path, **more: Any) -> Profile:
    """A profile of the shortest table of `engine`, and the model in full precision."""
    model = base
    if engine.only_quantized and "quantize" not in more:
        config = {**SMALL, "quantization_config": GPTQ}
        model = write_model(base.parent / "finished", config, gptq_tensors(SMALL, 4, 64))
    example = engine.example if "quantize" not in more else {}
    if "gguf_file" in example:
        shapes = {n: s for n, (_, s) in llama_tensors(SMALL).items()}
        write_gguf(base / example["gguf_file"], shapes, SMALL)
    variants = [
        {"label": "it", "engine": engine.name, "model": str(model), **example, **more},
        {"label": "base", "engine": baseline().name, "model": str(base)},
    ]
    return Profile.model_validate({"name": "Contract", "variants": variants})


def is_one_line(text: str) -> bool:
    return bool(text.strip()) and "\n" not in text


@each_engine
def test_the_shortest_table_is_valid_and_comes_back_from_toml(
    engine: Engine[Any], base: Path
) -> None:
    profile = profile_with(engine, base)
    assert engine_of(profile.variants[0]) is engine
    assert isinstance(profile.variants[0], engine.variant_table)
    assert loads(to_toml(profile), where="x", folder=base) == profile
    assert is_one_line(engine.summary) and is_one_line(engine.label(profile.variants[0]))


@each_engine
def test_it_is_planned_and_shown(engine: Engine[Any], base: Path) -> None:
    profile = profile_with(engine, base)
    plan = make_plan(profile, saved_snapshots.SAMPLE)
    (planned, _) = plan.variants
    assert planned.problem if engine.is_server else planned.estimate, planned.problem
    assert "it" in printed(blocks(plan))


@each_engine
@pytest.mark.parametrize("cuda", [False, True])
def test_its_memory_is_estimated(engine: Engine[Any], base: Path, cuda: bool) -> None:
    if engine.is_server:
        return
    spec, full = profile_with(engine, base).variants
    files, plain = files_to_load(spec, fetch=False)[0], files_of(full.model)
    needed = estimate(spec, files, cuda=cuda, tokens=64)
    assert 0 < needed.weights <= 4 * sum(t.elements for t in plain.tensors.values())
    assert needed.unquantized + sum(needed.overhead.values()) <= needed.weights
    assert needed.peak >= needed.total > needed.weights > 0
    assert needed.kv_cache > 0 and needed.dtype in ("float32", "float16", "bfloat16")


@each_engine
def test_it_takes_a_draft_or_refuses_it_by_name(engine: Engine[Any], base: Path) -> None:
    if engine.is_server or engine.runs_gguf:
        with pytest.raises(ValueError, match=r"draft is a setting of .*-md"):
            profile_with(engine, base, draft=str(base))
        return
    small = {**SMALL, "num_hidden_layers": 1}
    draft = write_model(base.parent / "draft", small, llama_tensors(small))
    spec = profile_with(engine, base, draft=str(draft), draft_tokens=4).variants[0]
    load = load_request(spec, PreparedModel(spec.model, None))
    assert (load.decode, load.options["draft"]) == ("generate", str(draft))
    assert load.options["draft_tokens"] == 4
    alone = profile_with(engine, base, decode="generate").variants[0]
    without, needed = (
        estimate(one, files_to_load(one, fetch=False)[0], cuda=False, tokens=64)
        for one in (alone, spec)
    )
    size = sum(t.elements for t in files_of(str(draft)).tensors.values())
    assert 2 * size < needed.draft < 5 * size and without.draft == 0
    assert needed.total == without.total + needed.draft
    assert "draft, with its KV cache" in printed(blocks(make_plan(
        profile_with(engine, base, draft=str(draft)), saved_snapshots.SAMPLE
    )))  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"draft": "org/small", "decode": "eager"}, 'decode = "eager" takes no draft; use decode'),
        ({"draft": "org/small", "kv_cache": "fp8"}, "leave out `kv_cache` or `draft`"),
        ({"draft_tokens": 5}, "draft_tokens needs a `draft`"),
        ({"draft": "a/b/c"}, "must be a folder"),
    ],
)
def test_what_a_draft_does_not_go_with_is_refused(
    keys: dict[str, Any], said: str, base: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        profile_with(baseline(), base, **keys)


@each_engine
def test_its_kv_cache_is_quantized_or_refused_by_name(engine: Engine[Any], base: Path) -> None:
    if engine.is_server or engine.runs_gguf:
        with pytest.raises(ValueError, match=r"kv_cache .*(--kv-cache-dtype|type_k)"):
            profile_with(engine, base, kv_cache="fp8")
        return
    needed = []
    for kind in (None, "fp8", "int8", "int4"):
        spec = profile_with(engine, base, kv_cache=kind, decode="eager").variants[0]
        assert spec.options.get("kv_cache") == kind
        files = files_to_load(spec, fetch=False)[0]
        needed.append(estimate(spec, files, cuda=False, tokens=2048).kv_cache)
    full, fp8, int8, int4 = needed
    assert int4 < fp8 < int8 < full  # int8 has scales and the last tokens unquantized
    with pytest.raises(ValueError, match="leave out `decode` or `kv_cache`"):
        profile_with(engine, base, kv_cache="fp8", decode="graph")


def test_a_variant_with_a_quantized_kv_cache_is_no_reference(base: Path) -> None:
    one = {"engine": "transformers", "model": str(base), "kv_cache": "fp8", "label": "fp8"}
    two = {"engine": "bitsandbytes", "model": str(base), "label": "NF4"}
    profile = Profile.model_validate({"name": "Contract", "variants": [one, two]})
    assert reference_of(profile, None).kv_cache is None


@each_engine
def test_it_has_a_reference(engine: Engine[Any], base: Path) -> None:
    reference = reference_of(profile_with(engine, base), None)
    assert engine_of(reference).is_baseline and reference.model == str(base)


@each_engine
def test_the_request_to_load_it_crosses_the_pipe(engine: Engine[Any], base: Path) -> None:
    spec = profile_with(engine, base).variants[0]
    request = load_request(spec, PreparedModel(spec.model))
    assert isinstance(request, LoadModel) and decode_command(encode(request)) == request
    assert request.loader == engine.loader and request.needs == list(engine.libraries)
    assert request.reader == engine.reader
    json.dumps(request.options)


@each_engine
def test_its_loader_is_there(engine: Engine[Any]) -> None:
    loader = importlib.import_module(engine.loader)
    assert callable(loader.load)
    assert getattr(loader, "SERVER", False) == engine.is_server


@each_engine
def test_a_missing_library_is_one_line_with_the_command_that_installs_it(
    engine: Engine[Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = profile_with(engine, base).variants[0]
    request = load_request(spec, PreparedModel(spec.model))
    for missing in engine.libraries:
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, missing.module, None)  # as Python marks what is not there
            with pytest.raises(Refused) as told:
                loader_of(request)
        failure = told.value.failure
        assert failure.kind == "missing_library" and missing.package in failure.reason
        assert missing.command in failure.hint
        assert is_one_line(f"{failure.reason} ({failure.hint})")


@each_engine
def test_it_survives_a_snapshot(engine: Engine[Any], base: Path, tmp_path: Path) -> None:
    profile = profile_with(engine, base)
    made = saved_snapshots.snapshot(profile=profile.model_dump(mode="json"))
    path = store.save(made, tmp_path / "snapshots")
    assert Profile.model_validate(store.load(path).profile) == profile


@each_engine
def test_each_method_validates_and_has_a_stage_where_it_is_saved(
    engine: Engine[Any], base: Path
) -> None:
    for method in engine.methods:
        keys = dict(method.keys)
        if method.calibrated:
            fields = inner_tables(engine.variant_table)["quantize"].model_fields
            keys["quantize"] = {"group_size": 64} if "group_size" in fields else {}
        spec: AnyVariant = profile_with(engine, base, **keys).variants[0]
        assert engine.is_saved(spec) == method.calibrated
        assert engine.starts_from_base(spec) != engine.is_baseline
        assert engine.label(spec) == method.label
        if method.saved is not None:
            saves = profile_with(engine, base, **keys, **method.saved).variants[0]
            assert engine.is_saved(saves)
            assert callable(pkgutil.resolve_name(engine.stage))

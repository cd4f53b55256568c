"""A comparison built from the names of models, without a profile."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import fake_hub
from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from fakes.openai_server import FakeServer
from quantchat import paths
from quantchat.checkpoints.cache import BuildFolders, CheckpointCache
from quantchat.cli import main
from quantchat.console import opening
from quantchat.engines import registry
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.engine import Engine
from quantchat.engines.gptq import Gptq
from quantchat.engines.openai import OpenAI
from quantchat.engines.registry import methods
from quantchat.engines.transformers import Transformers
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.profile.load import load, loads
from quantchat.profile.model import Profile
from quantchat.profile.toml_out import to_toml
from quantchat.session import from_models
from quantchat.session.from_models import CheckpointToBuild, profile_of

SMALL = {**LLAMA_2_7B, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 1}

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_model(tmp_path / "org" / "llama", SMALL, llama_tensors(SMALL))


@pytest.fixture
def llama_gptq(tmp_path: Path) -> Path:
    config = {**SMALL, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    return write_model(tmp_path / "org" / "llama-gptq", config, gptq_tensors(SMALL, 4, 64))


def test_one_model_is_its_gptq_against_its_nf4(llama: Path) -> None:
    gptq, nf4 = profile_of([str(llama)]).variants
    assert isinstance(gptq, Gptq)
    assert isinstance(nf4, BitsAndBytes)
    assert [gptq.label, nf4.label] == ["GPTQ 4-bit", "NF4, double quant"]
    assert gptq.model == nf4.model == str(llama)
    assert gptq.quantize is not None
    assert gptq.quantize.group_size == 64, "128 does not divide 576"


@pytest.mark.parametrize(
    ("widths", "size"), [((4096, 11008), 128), ((576,), 64), ((4096, 96), 32), ((100,), -1)]
)
def test_the_group_size_divides_each_layer(widths: tuple[int, ...], size: int) -> None:
    tensors = {
        f"model.layers.{n}.mlp.up_proj.weight": TensorInfo("F16", (8, w))
        for n, w in enumerate(widths)
    }
    # Neither the head nor a norm is quantized.
    tensors |= {
        "lm_head.weight": TensorInfo("F16", (8, 7)),
        "model.layers.0.norm.weight": TensorInfo("F16", (7,)),
    }
    assert from_models.group_size(ModelFiles({}, tensors)) == size


def test_methods_are_chosen(llama: Path) -> None:
    profile = profile_of([str(llama)], methods=["nf4", "bf16", "int8"])
    assert [v.label for v in profile.variants] == ["NF4, double quant", "bf16", "int8"]
    assert profile.variants[1].dtype == "bfloat16"


@pytest.mark.parametrize("method", methods())
def test_each_method_makes_a_variant(method: str, llama: Path) -> None:
    other = "bf16" if method != "bf16" else "nf4"
    assert (
        profile_of([str(llama)], methods=[method, other]).variants[0].label
        == methods()[method][1].label
    )


def test_a_finished_checkpoint_is_taken(llama: Path) -> None:
    variant = profile_of([str(llama)], gptq="org/llama-GPTQ").variants[0]
    assert isinstance(variant, Gptq)
    assert (variant.model, variant.quantize) == ("org/llama-GPTQ", None)


def test_a_published_checkpoint_that_a_profile_names_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "meta-llama/Llama-3.1-8B-Instruct"
    files = ModelFiles({}, {})
    monkeypatch.setattr(from_models, "read", lambda *_, **__: files)
    variant = profile_of([model]).variants[0]
    assert isinstance(variant, Gptq)
    assert variant.model == "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"
    assert variant.quantize is None


def test_two_models_are_compared_as_they_are(llama: Path, llama_gptq: Path) -> None:
    plain, quantized = profile_of([str(llama), str(llama_gptq)]).variants
    assert isinstance(plain, Transformers)
    assert isinstance(quantized, Gptq)
    assert quantized.quantize is None
    assert [plain.label, quantized.label] == ["llama", "llama-gptq"]


def test_methods_leave_a_quantized_checkpoint_as_it_is(llama: Path, llama_gptq: Path) -> None:
    variants = profile_of([str(llama), str(llama_gptq)], methods=["nf4", "bf16"]).variants
    assert [v.label for v in variants] == ["llama NF4, double quant", "llama bf16", "llama-gptq"]


def test_the_same_model_twice_has_two_labels(llama: Path) -> None:
    labels = [v.label for v in profile_of([str(llama), str(llama)]).variants]
    assert labels == ["llama", "llama (2)"]


@pytest.mark.parametrize("llama_cpp", ["here", "in an environment", "missing"])
def test_a_gguf_file_is_computed_where_its_library_is_there(
    llama_cpp: str, tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Engine, "is_installed", lambda _: llama_cpp == "here")
    if llama_cpp == "in an environment":
        python = tmp_path / "cache" / "environments" / "gguf" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
        made = {"python": "3.11", "requirements": ["llama-cpp-python"], "packages": {}}
        (python.parents[1] / "made.json").write_text(json.dumps(made))
    (folder := tmp_path / "alone").mkdir()
    (file := folder / "llama-q4.gguf").write_bytes(b"GGUF")
    for word in (str(file), str(folder)):
        gguf = profile_of([word, str(llama)]).variants[0]
        assert gguf.model == str(folder)
        assert registry.engine_of(gguf).gguf_file(gguf) == "llama-q4.gguf"
        assert gguf.engine == ("transformers" if llama_cpp == "missing" else "gguf")
        assert gguf.env == ("gguf" if llama_cpp == "in an environment" else None)
    if llama_cpp == "missing":
        with pytest.raises(UserError, match="needs the package llama-cpp-python"):
            profile_of(["org/llama-GGUF:Q4_K_M", str(llama)])
        return
    hub = profile_of(["org/llama-GGUF:Q4_K_M", str(llama)]).variants[0]
    assert (hub.model, hub.label) == ("org/llama-GGUF", "llama-GGUF")
    assert registry.engine_of(hub).gguf_file(hub) == "Q4_K_M"


def test_a_folder_with_several_gguf_files_lists_them(tmp_path: Path, llama: Path) -> None:
    for name in ("a-Q4_0.gguf", "a-Q8_0.gguf", "mmproj-a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match="has 2 GGUF files") as told:
        profile_of([str(tmp_path), str(llama)])
    assert told.value.hint is not None and '"a-Q4_0.gguf", "a-Q8_0.gguf"' in told.value.hint


def test_a_server_is_named_by_its_address(server: FakeServer, llama: Path) -> None:
    served = from_models.served_models(server.url)
    one, two = profile_of([server.url, str(llama)]).variants
    assert isinstance(one, OpenAI)
    assert (one.model, one.base_url) == (served[0], server.url)
    assert isinstance(two, Transformers)


def test_of_several_served_models_the_named_one_is_taken(server: FakeServer, llama: Path) -> None:
    server.listed = json.dumps({"data": [{"id": "a"}, {"id": str(llama)}, {"id": None}, 3]})
    assert profile_of([server.url, str(llama)]).variants[0].model == str(llama)
    with pytest.raises(UserError, match="the server has 2 models: a, "):
        profile_of([server.url, server.url])


@pytest.mark.parametrize("listed", ["{}", "[]", "nothing", '{"data": 3}', '{"data": []}'])
def test_a_server_that_lists_nothing_is_one_line(listed: str, server: FakeServer) -> None:
    server.listed = listed
    with pytest.raises(UserError, match=r"lists? (its models|no model)"):
        profile_of([server.url, server.url])


def test_a_model_of_the_hub(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub.serving(tmp_path) as (address, _):
        fake_hub.ask_at(address, monkeypatch)
        gptq = profile_of(["org/llama"]).variants[0]
        with pytest.raises(UserError, match="org/lama: no folder has this name, and as a"):
            profile_of(["org/lama"])
    assert isinstance(gptq, Gptq)
    assert gptq.model == "org/llama"


@pytest.mark.parametrize(
    ("words", "methods", "said"),
    [
        (["llama-gptq"], [], "a comparison needs two variants"),
        (["llama"], ["nf4"], "a comparison needs two variants"),
        (["llama"], ["exl3"], '"exl3" is not a quantization method'),
        (["llama"], ["nf5"], 'did you mean "nf4"'),
        (["no.gguf", "llama"], [], "there is no such file"),
        (["lama"], [], 'no profile or folder is called "lama"'),
        (["~nobody-here/x", "llama"], [], "there is no such file or folder"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    methods: list[str],
    said: str,
    llama: Path,
    llama_gptq: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(llama.parent)
    with pytest.raises(UserError) as caught:
        profile_of(words, methods=methods)
    (line,) = caught.value.lines
    assert said in line


# ---------------------------------------------------------------- what has to be made


def test_what_making_costs_is_told_before_it_is_asked(
    llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UserError, match="no terminal to confirm"):
        opening.profile_of([str(llama)])
    said = capsys.readouterr().err
    (making,) = from_models.checkpoints_to_build(profile_of([str(llama)]))
    assert making.reads == sum(t.bytes for t in from_models.files_of(str(llama)).tensors.values())
    assert 0 < making.writes < making.reads
    assert f"{making.reads / 1e9:.1f} GB of weights" in said
    assert "not known: no checkpoint was made on this machine yet" in said
    assert len(opening.profile_of([str(llama)], yes=True).variants) == 2


async def test_the_time_goes_by_the_last_one_made_here(llama: Path, tmp_path: Path) -> None:
    async def build(site: BuildFolders) -> dict[str, object]:
        (site.output / "model.safetensors").write_bytes(b"x" * 1000)
        return {}

    cache = CheckpointCache(tmp_path / "cache" / "checkpoints")
    inputs = {"damp_percent": 0.05, "needs": []}
    folder = await cache.make("some-gptq", build, inputs=inputs, versions={}, on_wait=lambda: None)
    made = json.loads((folder / "made.json").read_text())
    (folder / "made.json").write_text(json.dumps({**made, "seconds": 10.0}))
    (entry,) = cache.entries()
    (making,) = from_models.checkpoints_to_build(profile_of([str(llama)]))
    assert making.seconds == pytest.approx(10 * making.writes / entry.bytes)


def test_a_finished_checkpoint_needs_no_making(llama: Path, llama_gptq: Path) -> None:
    assert from_models.checkpoints_to_build(profile_of([str(llama)], gptq=str(llama_gptq))) == []


def test_no_is_the_end(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", _declined)
    assert main(["plan", str(llama)]) in (0, 1), "a plan makes nothing, and asks nothing"
    assert main(["run", str(llama)]) == 130


def _declined(*_: object, **__: object) -> None:
    raise click.Abort


def test_a_duration_is_short() -> None:
    assert [opening._duration(s) for s in (20, 600, 7200)] == ["20 s", "10 min", "2.0 h"]
    assert CheckpointToBuild("a", "b", 1, 1, None).seconds is None


# ---------------------------------------------------------------- as a profile


def test_the_profile_is_saved_and_loads_as_the_same(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    made = opening.profile_of([str(llama)], save=path, yes=True)
    assert load(path) == made
    with pytest.raises(UserError, match="already exists"):
        opening.profile_of([str(llama)], save=path, yes=True)


@given(
    name=st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()),
    system=st.text(st.characters(exclude_categories=["Cs"])),
    temperature=st.floats(0, 10),
    template=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(codec="utf-8")),
        max_size=3,
    ),
)
def test_any_profile_is_written_as_what_it_is(
    name: str, system: str, temperature: float, template: dict[str, bool | int | str]
) -> None:
    shared = {"model": "/m", "chat_template_kwargs": template}
    profile = Profile.model_validate(
        {
            "name": name,
            "variants": [
                {"label": "a", "engine": "gptq", "quantize": {}, **shared},
                {"label": name[::-1] + "b", "engine": "bitsandbytes", **shared},
                {
                    "label": "served",
                    "engine": "openai",
                    "model": "m",
                    "base_url": "http://127.0.0.1:{port}/v1",
                    "server": {"command": ["serve", "--port", "{port}"]},
                },
            ],
            "generation": {"system": system, "temperature": temperature},
        }
    )
    assert loads(to_toml(profile), where="p.toml", folder=Path("/")) == profile


# ------------------------------------------------------------ names that are not found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> Path:
    """Return the current folder, with a model's folder, a GGUF file and a cached model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My-Llama").mkdir()
    (tmp_path / "qwen3.gguf").touch()
    (paths.hub_cache() / "models--Some-Org--Tiny-Chat-1B").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dmo", 'did you mean "demo"? Looked for in ./profiles, '),
        ("my-lama", 'did you mean "My-Llama"? Looked for in ./profiles, '),
        ("zzzzzz", "looked for in ./profiles, "),
        ("./my-lama", 'did you mean "My-Llama"?'),
        ("qwen.gguf", 'did you mean "qwen3.gguf"?'),
        ("./xyz.gguf", "name a GGUF file, or a model of the hub"),
        ("some-org/tiny-chat-1", 'did you mean "Some-Org/Tiny-Chat-1B"?'),
        ("meta-llama/Llama-2-7b-chat", 'did you mean "meta-llama/Llama-2-7b-chat-hf"'),
        ("zzz/xyz", "not on this machine, and the hub"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_not_found_names_the_nearest_and_the_places(word: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        profile_of([word])
    assert said in str(error.value)
    assert str(paths.config_dir()) in str(error.value) or "Looked" not in said

"""`quantchat plan`: the chosen device, the memory already in use, and the wording."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_file import write_gguf
from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from fakes.printed_document import printed
from fakes.safe_line import is_clean
from fakes.saved_snapshots import SAMPLE
from fakes.scripted_worker import Script, ScriptedProvider, model_info, starter
from quantchat.checkpoints.variant_files import files_of, predicted
from quantchat.cli import main
from quantchat.document.snapshot_tables import memory_table
from quantchat.features.memory_plan import tables as report
from quantchat.measuring.measure import measure
from quantchat.measuring.memory_plan import MemoryPlan, make_plan, warning
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.load import load
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store
from quantchat.system.gpus import GpuSample
from quantchat.system.host import cpu_has
from quantchat.system.sampler import DeviceSample

GIB = 2**30


def gpu(index: int = 0, used: int = 0, total: int = 24, mig: bool = False) -> GpuSample:
    return GpuSample(
        index,
        f"{'MIG' if mig else 'GPU'}-{index}a{used}",
        "NVIDIA GeForce RTX 4090",
        mig=mig,
        memory_used=used * GIB,
        memory_total=total * GIB,
    )


def machine(*gpus: GpuSample) -> DeviceSample:
    return replace(SAMPLE, gpus=list(gpus))


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")  # built with CUDA


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Llama 2 7B: GPTQ, 3.9 GB, against NF4, and bf16, 13.5 GB."""
    base = write_model(tmp_path / "base", LLAMA_2_7B, llama_tensors(LLAMA_2_7B), shards=2)
    config = {**LLAMA_2_7B, "quantization_config": {"bits": 4, "group_size": 128}}
    made = write_model(tmp_path / "gptq", config, gptq_tensors(LLAMA_2_7B, 4, 128))
    return Profile.model_validate(
        {
            "name": "Llama",
            "variants": [
                {"label": "GPTQ", "engine": "gptq", "model": str(made)},
                {"label": "NF4", "engine": "bitsandbytes", "model": str(base)},
                {"label": "bf16", "engine": "transformers", "model": str(base)},
            ],
            "generation": {"max_new_tokens": 1000},
        }
    )


def on(profile: Profile, device: str) -> Profile:
    variants = [variant.model_copy(update={"device": device}) for variant in profile.variants]
    return profile.model_copy(update={"variants": variants})


# ------------------------------------------------------------ what fits where


@pytest.mark.parametrize(
    ("used", "fit"), [(0, "fits"), (13, "fits"), (15, "does not fit"), (24, "does not fit")]
)
def test_the_pair_beside_what_is_there(profile: Profile, used: int, fit: str) -> None:
    plan = make_plan(profile, machine(gpu(used=used)))
    (device_plan,) = plan.devices
    estimates = [variant.estimate for variant in plan.variants[:2]]
    assert device_plan.labels == ["GPTQ", "NF4"]
    assert device_plan.total == sum(one.total for one in estimates if one)
    assert device_plan.peak == sum(one.peak for one in estimates if one)
    assert device_plan.device.free == (24 - used) * GIB
    assert (device_plan.fit, plan.fit) == (fit, fit)
    assert all(one and one.context_tokens == 1512 for one in estimates)


def test_what_fits_once_loaded_may_not_while_loading(profile: Profile) -> None:
    plain = [one.model_copy(update={"decode": "generate"}) for one in profile.variants]
    profile = profile.model_copy(update={"variants": plain})  # no room beyond that one token
    (device_plan,) = make_plan(profile, machine(gpu()), tokens=1).devices
    assert device_plan.total is not None
    assert device_plan.peak is not None
    # With no context to speak of, loading is what takes most.
    assert device_plan.total < device_plan.peak
    for free, fit in [
        (device_plan.peak, "fits"),
        (device_plan.peak - 1, "tight"),
        (device_plan.total, "tight"),
        (device_plan.total - 1, "does not fit"),
    ]:
        just = replace(gpu(), memory_used=24 * GIB - free)
        assert make_plan(profile, machine(just), tokens=1).fit == fit


def test_a_variant_each_on_its_own_gpu(profile: Profile) -> None:
    first, second, third = profile.variants
    apart = profile.model_copy(
        update={
            "variants": [
                first.model_copy(update={"device": "cuda:1"}),
                second.model_copy(update={"device": "cuda"}),
                third.model_copy(update={"device": "cpu"}),
            ]
        }
    )
    plan = make_plan(apart, machine(gpu(0), gpu(1, used=23)))
    assert [(device_plan.labels, device_plan.fit) for device_plan in plan.devices] == [
        (["GPTQ"], "does not fit"),
        (["NF4"], "fits"),
    ]
    assert plan.fit == "does not fit"
    assert plan.variants[2].device.name == "RAM"


def test_the_pair_on_show_is_judged(profile: Profile) -> None:
    plan = make_plan(profile, machine(gpu()), pair=(1, 2))
    assert plan.devices[0].labels == ["NF4", "bf16"]


def test_a_gpu_that_is_not_there_or_does_not_tell(profile: Profile) -> None:
    plan = make_plan(on(profile, "cuda:1"), machine(gpu()))
    assert plan.devices[0].device.name == "cuda:1, which is not there"
    assert plan.fit == "not known"
    silent = replace(gpu(), memory_used=None)
    assert make_plan(profile, machine(silent)).fit == "not known"


def test_without_a_gpu_or_a_torch_that_knows_it_the_ram_counts(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = SAMPLE.host
    (device_plan,) = make_plan(profile, machine()).devices
    assert (device_plan.device.name, device_plan.device.free) == (
        "RAM",
        host.ram_total - host.ram_used,
    )
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert make_plan(profile, machine(gpu())).devices[0].device.name == "RAM"
    assert make_plan(on(profile, "cuda"), machine(gpu())).devices[0].device.cuda


def test_fp8_on_a_gpu_without_kernels_for_it_is_planned_dequantized(
    profile: Profile, tmp_path: Path
) -> None:
    config = {**LLAMA_2_7B, "quantization_config": {"quant_method": "fp8"}}
    tensors = {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (4096, 4096))}
    folder = write_model(tmp_path / "fp8", config, tensors)
    spec = profile.variants[2].model_copy(update={"model": str(folder), "dtype": "auto"})
    only = profile.model_copy(update={"variants": [spec]})
    for capability, size in (((8, 6), 2), ((8, 9), 1), (None, 1)):
        sample = machine(replace(gpu(0), capability=capability))
        (planned,) = make_plan(only, sample, pair=(0,)).variants
        assert planned.estimate is not None
        assert planned.estimate.weights == size * 4096**2
        assert any("fp8 is dequantized" in note for note in planned.notes) == (size == 2)
    two = machine(
        replace(gpu(0, total=1), capability=(9, 0)), replace(gpu(1, total=1), capability=(8, 0))
    )
    assert make_plan(profile, two, pair=(2,)).devices[0].device.capability == (8, 0)


def test_the_shown_gpus_are_planned_for(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (device_plan,) = make_plan(profile, machine(gpu(0), gpu(1, used=5))).devices
    assert device_plan.device.name.startswith("GPU 1 ")


def test_what_is_too_large_for_the_first_gpu_is_planned_for_all(profile: Profile) -> None:
    pair = (0, 2)  # GPTQ, which fits, and bf16, which does not
    apart = [profile.variants[0].model_copy(update={"device": "cpu"}), *profile.variants[1:]]
    two = machine(gpu(0, total=12), gpu(1, total=12, used=2))
    plan = make_plan(profile.model_copy(update={"variants": apart}), two, pair=pair)
    small, large = plan.devices
    assert small.device.name == "RAM"
    assert (large.labels, large.device.name) == (["bf16"], "GPUs 0, 1 together")
    assert (large.device.free, large.device.total) == (22 * GIB, 24 * GIB)
    assert large.fit == "fits"
    # One that is named is the only one, and of a single one there is no next.
    assert make_plan(on(profile, "cuda:0"), machine(gpu(0, total=12), gpu(1)), pair=pair).fit == (
        "does not fit"
    )
    assert make_plan(profile, machine(gpu(total=12)), pair=pair).fit == "does not fit"
    unknown = machine(gpu(0, total=12), replace(gpu(1), memory_used=None))
    assert make_plan(profile, unknown, pair=pair).fit == "not known"


def test_what_is_too_large_for_the_first_gpu_lies_on_the_next_that_takes_it_all(
    profile: Profile,
) -> None:
    three = machine(gpu(0, used=22), gpu(1, used=14), gpu(2))
    plan = make_plan(profile, three, pair=(0, 2))
    # GPTQ's checkpoint has 3.9 GB; NF4 is made of bf16's, of 13.5 GB.
    assert [one.device.gpus for one in plan.variants] == [(1,), (2,), (2,)]
    assert plan.fit == "fits"
    # What is quantized on load fits where its checkpoint does not.
    assert make_plan(profile, machine(gpu(0, total=12), gpu(1, total=12))).variants[
        1
    ].device.gpus == (0,)


@pytest.mark.parametrize("pair", [(0, 2), (2, 0)])
@pytest.mark.parametrize(
    ("device", "total", "free", "fit"),
    # GPTQ, 4.7 GiB with its context, beside bf16's 14.0, which is spread.
    [("auto", 12, 24, "tight"), ("cuda:1", 12, 24, "tight"), ("auto", 8, 16, "does not fit")],
)
def test_who_is_spread_shares_the_gpu_of_the_other(
    profile: Profile, pair: tuple[int, int], device: str, total: int, free: int, fit: str
) -> None:
    changed = [profile.variants[0].model_copy(update={"device": device}), *profile.variants[1:]]
    shared = profile.model_copy(update={"variants": changed})
    two = machine(gpu(0, total=total), gpu(1, total=total))
    plan = make_plan(shared, two, pair=pair)
    (device_plan,) = plan.devices
    assert device_plan.labels == [shared.variants[index].label for index in pair]
    estimates = [plan.variants[index].estimate for index in pair]
    assert device_plan.total == sum(one.total for one in estimates if one)
    assert (device_plan.device.name, device_plan.device.free) == ("GPUs 0, 1 together", free * GIB)
    assert (device_plan.fit, plan.fit) == (fit, fit)
    # Its own GPU is where the small one lies all the same.
    assert plan.variants[0].device.name.startswith("GPU 1" if device == "cuda:1" else "GPU 0")
    said = warning(shared, two, pair)
    assert said is not None
    assert said.endswith(
        "GPUs 0, 1 together, where one variant may fill a GPU that the other needs"
    )
    assert "where one variant may fill a GPU that the other needs" in printed(report.blocks(plan))


def test_two_that_are_spread_are_no_sure_fit_either(profile: Profile) -> None:
    both = profile.model_copy(update={"variants": [profile.variants[2], profile.variants[2]]})
    (device_plan,) = make_plan(both, machine(*(gpu(n, total=12) for n in range(4)))).devices
    assert device_plan.peak is not None
    assert device_plan.device.free is not None
    assert device_plan.peak < device_plan.device.free
    assert device_plan.fit == "tight"


def test_nothing_is_spread_over_mig_instances(profile: Profile) -> None:
    two = machine(gpu(0, total=12, mig=True), gpu(0, total=12, mig=True, used=1))
    (device_plan,) = make_plan(profile, two, pair=(2, 2)).devices
    assert (device_plan.device.free, device_plan.fit) == (12 * GIB, "does not fit")


# ------------------------------------------------------------ what is known, and what is not


def test_the_demo_is_known_before_it_is_made() -> None:
    demo = Path(__file__).parents[3] / "profiles" / "demo.toml"
    plan = make_plan(load(demo), machine(gpu()))
    gptq, nf4, bf16 = (variant.estimate for variant in plan.variants)
    assert gptq is not None and nf4 is not None and bf16 is not None
    # The figures of the profile's own header, worked out by hand.
    assert gptq.weights == pytest.approx(114e6, rel=0.01)
    assert nf4.weights == pytest.approx(111e6, rel=0.01)
    assert bf16.weights == pytest.approx(269e6, rel=0.01)
    assert all("not built yet" in variant.notes[0] for variant in plan.variants)


def test_what_is_not_here_is_not_known(profile: Profile) -> None:
    away = profile.variants[1].model_copy(update={"model": "org/away"})
    plain = profile.variants[0].model_copy(update={"model": profile.variants[1].model})
    gguf = profile.variants[2].model_copy(update={"gguf_file": "a.gguf", "model": "org/away"})
    changed = profile.model_copy(update={"variants": [profile.variants[0], away, plain, gguf]})
    plan = make_plan(changed, machine(gpu()))
    shown = [variant.label for variant in changed.variants]
    assert plan.fit == "not known"
    assert plan.devices[0].total is None
    assert f"not known: {shown[0]} and {shown[1]}: 24.0 GiB of 24.0" in printed(report.blocks(plan))
    problems = [variant.problem for variant in plan.variants]
    assert problems[0] == ""
    assert "not on this machine yet" in problems[1]
    assert "is not quantized" in problems[2]
    assert "not on this machine yet" in problems[3]


def test_a_gguf_file_is_reckoned_dequantized(profile: Profile, tmp_path: Path) -> None:
    shapes = {name: shape for name, (_, shape) in llama_tensors(LLAMA_2_7B).items()}
    write_gguf(tmp_path / "a.gguf", shapes, LLAMA_2_7B)
    update: dict[str, Any] = {"gguf_file": "a.gguf", "model": str(tmp_path), "dtype": "bfloat16"}
    gguf = profile.variants[2].model_copy(update=update)
    wide = gguf.model_copy(update={"dtype": "auto"})
    changed = profile.model_copy(update={"variants": [profile.variants[2], gguf, wide]})
    bf16, narrow, full = make_plan(changed, machine()).variants
    assert bf16.estimate is not None and narrow.estimate is not None and full.estimate is not None
    assert narrow.estimate.weights == bf16.estimate.weights
    assert narrow.estimate.kv_cache == bf16.estimate.kv_cache
    assert full.estimate.weights == 2 * narrow.estimate.weights
    assert (
        "a.gguf is dequantized to bfloat16 when it is loaded: 13.5 GB, not 3.8 GB" in narrow.notes
    )
    ran = replace(model_info(), model=str(tmp_path), device="cpu")
    assert predicted(gguf, files_of(gguf, ran), ran, 1512) == narrow.estimate


def test_the_prediction_of_what_runs(profile: Profile, tmp_path: Path) -> None:
    ran = replace(model_info(), model=str(tmp_path / "gptq"), device="cuda:0")
    spec = profile.variants[0]
    found = predicted(spec, files_of(spec, ran), ran, 1512)
    assert found == make_plan(profile, machine(gpu())).variants[0].estimate
    gone = replace(ran, model="/gone")
    assert predicted(spec, files_of(spec, gone), gone, 10) is None


async def test_the_snapshot_holds_it_beside_the_measurement(
    profile: Profile, tmp_path: Path
) -> None:
    labels = ("GPTQ", "NF4")
    scripts = {
        label: Script(replace(model_info(label), model=str(tmp_path / folder)))
        for label, folder in zip(labels, ("gptq", "gone"), strict=True)
    }
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, tmp_path)
    )
    snapshot = await measure(comparison, Plan((Task("one"),), rounds=1, warmup=0))
    known, unknown, never_ran = snapshot.variants
    plan = make_plan(on(profile, "cpu"), machine())
    assert known.predicted == plan.variants[0].estimate
    assert unknown.predicted is None
    assert never_ran.predicted is None
    assert store.load(store.save(snapshot, tmp_path / "saved")) == snapshot
    shown = printed(memory_table(snapshot), 120)
    assert re.search(r"  predicted +3\.\d GiB \(\+\d+\.\d%\)", shown)


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("processor : 0\nflags\t\t: fpu avx512_bf16 sse\n", True),
        ("flags : fpu avx512_bf16x\n", False),
        ("flags :\nflags : avx512_bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_what_the_processor_has(cpuinfo: str | None, has: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    assert cpu_has("avx512_bf16", file) is has


# ------------------------------------------------------------ how it is said


def test_the_warning(profile: Profile) -> None:
    assert warning(profile, machine(gpu())) is None
    assert warning(profile, machine(replace(gpu(), memory_total=None))) is None
    said = warning(profile, machine(gpu(used=20)))
    assert said is not None
    assert said.startswith("GPTQ and NF4 need about 9.")
    assert said.endswith("4.0 GiB are free on GPU 0 (NVIDIA GeForce RTX 4090)")
    tight = warning(profile, machine())  # in RAM the base's pages count while it is quantized
    assert tight is not None
    assert "while loading" in tight


def command(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *args: str, used: int = 0
) -> int:
    class Sampler:
        def sample(self) -> DeviceSample:
            return machine(gpu(used=used))

        def close(self) -> None:
            pass

    monkeypatch.setattr("quantchat.system.sampler.DeviceSampler", Sampler)
    monkeypatch.setattr("quantchat.profile.load.load", lambda path: profile)
    return main(["plan", str(tmp_path / "any.toml"), "--offline", *args])


def test_as_a_table(
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = profile.variants[2].model_copy(update={"label": "\x1b[2J[red]x"})
    shown = profile.model_copy(update={"variants": [*profile.variants[:2], hostile]})
    assert command(shown, tmp_path, monkeypatch) == 0
    out = capsys.readouterr().out
    assert is_clean(out.replace("\n", ""))
    assert "[red]x" in out
    assert "KV cache, 1512 tokens" in out
    assert "24.0 GiB of 24.0 GiB are free" in out
    assert command(shown, tmp_path, monkeypatch, used=20) == 1
    assert "does not fit" in " ".join(capsys.readouterr().out.split())


def test_as_json(
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(profile, tmp_path, monkeypatch, "--json", "--context", "4096") == 0
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    plan: MemoryPlan = make_plan(profile, machine(gpu()), tokens=4096)
    assert body["fit"] == body["devices"][0]["fit"] == "fits"
    for told, variant in zip(body["variants"], plan.variants, strict=True):
        assert variant.estimate is not None
        assert told["estimate"]["kv_cache"] == 2 * 2**30 == variant.estimate.kv_cache
        assert told["estimate"]["total"] == variant.estimate.total
        assert told["estimate"]["peak"] == variant.estimate.peak


def test_the_limits_are_the_last_that_fit(profile: Profile) -> None:
    """The KV cache of Llama 2 7B takes 0.5 MiB per token in 16 bits; its context is 4096 tokens."""
    free = machine(gpu(used=16))  # 8 GiB of 24
    roomy = make_plan(profile, machine(gpu(total=80)), tokens=2048, search_limits=True)
    tight = make_plan(profile, free, tokens=2048, search_limits=True)
    assert {one.longest_context for one in roomy.variants} == {4096}
    gptq, _, bf16 = tight.variants
    assert (bf16.longest_context, bf16.largest_batch) == (0, 0), "its weights do not fit"
    assert gptq.estimate and gptq.largest_batch
    assert gptq.estimate.of_batch(gptq.largest_batch) <= 8 * GIB
    assert gptq.estimate.of_batch(gptq.largest_batch + 1) > 8 * GIB
    assert make_plan(profile, free).variants[0].largest_batch is None, "nobody asked"


def test_the_longest_context_is_between_a_token_and_the_models_own(profile: Profile) -> None:
    short = make_plan(profile, machine(gpu(used=19)), search_limits=True).variants[0]
    assert short.longest_context and 1 < short.longest_context < 4096
    there = make_plan(profile, machine(gpu()), tokens=short.longest_context).variants[0].estimate
    beyond = make_plan(profile, machine(gpu()), tokens=short.longest_context + 1).variants[0]
    assert there and beyond.estimate
    assert there.total <= 5 * GIB < beyond.estimate.total

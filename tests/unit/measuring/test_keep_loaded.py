"""How many variants stay loaded: what memory has room for, those shown last first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from fakes.scripted_machine import GPU, HOST, with_memory
from fakes.scripted_worker import ledger
from quantchat.errors import UserError
from quantchat.measuring.keep_loaded import loadable_count
from quantchat.profile.load import validate
from quantchat.profile.model import Profile
from quantchat.system.sampler import DeviceSample

GIB = 2**30
NF4 = ledger(weights=4 * GIB, device="cuda:0")
"""A loaded variant of 4 GiB."""


def machine(free: float) -> DeviceSample:
    """Return a machine with a GPU of 24 GiB of which `free` are free."""
    return DeviceSample(0.0, HOST, [with_memory(GPU, int((24 - free) * GIB))])


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Llama 2 7B four times in NF4, about 4 GiB each, and a server."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    model = str(write_model(tmp_path / "base", LLAMA_2_7B, llama_tensors(LLAMA_2_7B)))
    variants = [
        {"label": name, "engine": "bitsandbytes", "model": model, "device": "cuda"}
        for name in "ABCD"
    ]
    server = {"label": "S", "engine": "openai", "model": "m", "base_url": "http://x:1/v1"}
    return Profile.model_validate({"name": "Llama", "variants": [*variants, server]})


def test_what_fits_stays(profile: Profile) -> None:
    order = [0, 2, 1, 3]
    loaded = {0: NF4, 1: NF4}
    assert loadable_count(profile, machine(12), order, loaded) == 3, "C is loaded beside A and B"
    assert loadable_count(profile, machine(3), order, loaded) == 2, "B makes room for C"
    assert loadable_count(profile, machine(20), order, {0: NF4, 1: NF4, 3: NF4}) == 4
    assert loadable_count(profile, machine(6), order, {0: NF4, 1: NF4, 3: NF4}) == 3


def test_the_pair_is_loaded_whether_it_fits_or_not(profile: Profile) -> None:
    assert loadable_count(profile, machine(0), [2, 3, 0, 1], {0: NF4, 1: NF4}) == 2
    assert loadable_count(profile, machine(0.5), [2, 3, 0, 1], {0: NF4}) == 2


def test_where_memory_is_not_known_only_the_pair_is_loaded(profile: Profile) -> None:
    no_gpu = DeviceSample(0.0, HOST, [])
    assert loadable_count(profile, no_gpu, [0, 2, 1, 3], {0: NF4, 1: NF4}) == 2


def test_a_server_elsewhere_needs_no_room(profile: Profile) -> None:
    loaded = {0: NF4, 4: ledger(device="server"), 1: NF4}
    assert loadable_count(profile, machine(12), [0, 2, 4, 1, 3], loaded) == 4


@pytest.mark.parametrize("value", ["1", "33", '"all"', "2.5"])
def test_a_wrong_number_of_places_is_explained(value: str) -> None:
    variants = "".join(
        f'[[variants]]\nlabel = "{x}"\nengine = "gptq"\nmodel = "org/{x}"\n' for x in "AB"
    )
    text = f'name = "x"\n{variants}[run]\nkeep_loaded = {value}\n'
    with pytest.raises(UserError) as caught:
        validate(text, "p.toml", Profile)
    said = " ".join(caught.value.lines)
    assert 'keep_loaded must be "auto" or a whole number from 2 to 32' in said.replace(":", "")

"""Options that can run any code are off by default, and print a warning when they are on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.printed_document import printed
from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.scripted_worker import model_info as info_of
from quantchat.cli import main
from quantchat.document.snapshot_tables import variants_table
from quantchat.features.measure.printing import measure_and_print
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store
from quantchat.worker.failures import Refused
from quantchat.worker.model.files_check import refuse_pickled

Capture = pytest.CaptureFixture[str]

BOTH = {"trust_remote_code": True, "allow_pickle": True}
DO_WHAT = ["runs the model's own code", "opens pickled weights"]


def profile(**unsafe_option: bool) -> Profile:
    plain: dict[str, Any] = {"engine": "transformers", "model": "not/loaded"}
    variants = [{**plain, "label": "safe"}, {**plain, "label": "daring", **unsafe_option}]
    return Profile.model_validate({"name": "Two", "variants": variants})


def test_off_by_default() -> None:
    for variant in profile().variants:
        assert variant.unsafe_options == []
        assert variant.options["allow_pickle"] is False
    assert profile(**BOTH).variants[1].unsafe_options == DO_WHAT


def test_the_plan_says_so(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "Two"\n[[variants]]\nlabel = "safe"\nengine = "transformers"\nmodel = "./nowhere"\n'
        '[[variants]]\nlabel = "daring"\nengine = "transformers"\nmodel = "./nowhere"\n'
        "trust_remote_code = true\nallow_pickle = true\n"
    )
    main(["plan", str(file)])
    shown = " ".join(capsys.readouterr().out.split())
    for words in DO_WHAT:
        assert f"daring: CAUTION: {words}" in shown
    assert "safe: CAUTION" not in shown


def test_a_run_says_so_before_and_after(tmp_path: Path, capsys: Capture) -> None:
    daring = Script()
    daring.model_info = replace(info_of(), trusted_code=True, pickle_allowed=True)
    scripts = {"safe": Script(), "daring": daring}
    sides = Comparison(
        profile(**BOTH), provider=ScriptedProvider(scripts), start=starter(scripts, tmp_path)
    )
    assert (
        measure_and_print(sides, Plan((Task("one"),), rounds=2, warmup=0), tmp_path, as_json=False)
        == 0
    )
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()[:2]
    assert [first, second] == [
        f"CAUTION: daring {words}, which could do anything you can" for words in DO_WHAT
    ]
    (file,) = tmp_path.glob("*.json")
    shown = printed(variants_table(store.load(file)))
    assert "THE MODEL'S OWN CODE RAN" in shown and "PICKLED WEIGHTS WERE ALLOWED" in shown


def test_a_run_tells_of_a_slow_kernel_once(tmp_path: Path, capsys: Capture) -> None:
    slow = Script()
    slow.model_info = replace(info_of(), slow_kernel="it unpacks (a cure)")
    scripts = {"safe": Script(), "daring": slow}
    sides = Comparison(
        profile(**BOTH), provider=ScriptedProvider(scripts), start=starter(scripts, tmp_path)
    )
    assert (
        measure_and_print(sides, Plan((Task("one"),), rounds=1, warmup=0), tmp_path, as_json=True)
        == 0
    )
    captured = capsys.readouterr()
    assert captured.err.count("SLOW KERNEL of daring: it unpacks (a cure)\n") == 1
    assert json.loads(captured.out)["variants"][1]["model_info"]["slow_kernel"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt"])
@pytest.mark.parametrize("has_option", [True, False])
def test_a_folder_of_pickles_is_refused_with_the_cure(
    tmp_path: Path, name: str, has_option: bool
) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(Refused) as caught:
        refuse_pickled(str(tmp_path), has_option=has_option)
    failure = caught.value.failure
    assert failure.kind == "bad_checkpoint"
    assert f"pickled ({name})" in failure.reason and "any code" in failure.reason
    assert "save_pretrained" in failure.hint
    assert ("allow_pickle = true" in failure.hint) == has_option
    # Beside safetensors they are not looked at, and so do no harm.
    (tmp_path / "model.safetensors").touch()
    refuse_pickled(str(tmp_path), has_option=has_option)

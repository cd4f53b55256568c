"""A model with the tokenizer and chat template of another model, and models that refuse it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import ask_at, serving
from fakes.tiny_folder import LETTERS, tiny_folder, tokenizer
from quantchat.checkpoints.provider import PreparedModel
from quantchat.profile.load import ProfileError, loads
from quantchat.session.requests import load_request
from quantchat.wire.jobs import CalibrateJob, Workspace
from quantchat.wire.messages import LoadModel, Message
from quantchat.worker import loaders
from quantchat.worker.decode.loop_decoder import encode_prompt
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import calibrate

TEMPLATE = "{% for m in messages %}[{{ m.content }}]{% endfor %}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model without a chat template."""
    return tiny_folder(tmp_path / "model")


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A folder with a tokenizer alone, which has one."""
    made = tokenizer()
    made.chat_template = TEMPLATE
    made.save_pretrained(tmp_path / "hub" / "org" / "chat")
    return tmp_path / "hub" / "org" / "chat"


def loaded(model: Path, **options: Any) -> Any:
    command = LoadModel("transformers", str(model), options, dtype="float32", device="cpu")
    return loaders.load(command, lambda stage: None)


def spelled(one: Any) -> str:
    return "".join(LETTERS[token] for token in encode_prompt(one, [Message("user", "Why?")]))


def test_its_chats_are_put_as_the_other_model_s_are(model: Path, chat: Path) -> None:
    own, lent = loaded(model), loaded(model, tokenizer=str(chat))
    assert (spelled(own), spelled(lent)) == ("Why?", "[Why?]")
    assert own.model_info("eager").tokenizer == ""
    ran = lent.model_info("eager")
    assert ran.chat_template and ran.tokenizer == str(chat)
    assert ran.tokenizer_hash == own.model_info("eager").tokenizer_hash  # the same vocabulary


def test_it_need_have_none_of_its_own(model: Path, chat: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(Refused, match=r"tokenizer\.json is missing"):
        loaded(model)
    assert spelled(loaded(model, tokenizer=str(chat))) == "[Why?]"


def test_of_a_hub_no_weight_is_fetched_for_it(
    model: Path, chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model / "model.safetensors", chat)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with serving(tmp_path / "hub") as (address, asked):
        ask_at(address, monkeypatch)
        one = loaded(model, tokenizer="org/chat@main")
    assert spelled(one) == "[Why?]"
    assert one.model_info("eager").tokenizer == "org/chat@main"
    assert any("tokenizer.json" in request for request in asked)
    assert not any("safetensors" in request for request in asked)


def test_one_with_tokens_that_the_model_does_not_know_is_refused_before_the_weights(
    model: Path, chat: Path
) -> None:
    made = tokenizer()
    made.add_tokens(["<more>"])
    made.save_pretrained(chat)
    (model / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"has 98 tokens, .* of 97") as refused:
        loaded(model, tokenizer=str(chat))
    assert "its base model" in refused.value.failure.hint


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a folder"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            "is not JSON, or is cut short",
        ),
    ],
)
def test_a_damaged_one_is_told_as_such(model: Path, chat: Path, damage: Any, reason: str) -> None:
    damage(chat)
    with pytest.raises(Refused, match=reason):
        loaded(model, tokenizer=str(chat))


def calibrated(model: Path, tmp_path: Path, tokenizer: str) -> str:
    """The text of the chats that the model writes, as its checkpoint is calibrated on it."""
    (tmp_path / "output").mkdir(exist_ok=True)
    job = CalibrateJob(
        load=LoadModel("transformers", str(model), {"tokenizer": tokenizer}, device="cpu"),
        prompts=["Why?"],
        samples=1,
        sample_tokens=8,
        seed=0,
        workspace=Workspace(str(tmp_path), str(tmp_path / "output")),
    )
    calibrate.run(job, lambda *step: None)
    return (tmp_path / "output" / "chats.txt").read_text()


def test_chats_for_calibration_are_written_in_its_template(
    model: Path, chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "prepare_process", lambda workspace: None)
    made = tokenizer()
    made.chat_template = TEMPLATE
    made.pad_token = made.bos_token
    made.save_pretrained(chat)
    for file in model.glob("tokenizer*"):
        file.unlink()
    said = calibrated(model, tmp_path, str(chat))
    assert said.startswith("[Why?][")
    answer = said.removeprefix("[Why?][").removesuffix("]").replace(" ", "")
    assert len(answer) > 1
    # The end of its turns is an end of the answer, whatever the model's own config says.
    made.eos_token = answer[1]
    made.save_pretrained(chat)
    cut = calibrated(model, tmp_path, str(chat))
    assert cut.removeprefix("[Why?][").removesuffix("]").strip() == answer[0]


def test_one_that_is_not_there_is_told_before_the_model_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "prepare_process", lambda workspace: None)
    (model / "model.safetensors").unlink()
    with pytest.raises(Refused, match="tokenizer named in the profile was not found"):
        calibrated(model, tmp_path, str(tmp_path / "gone"))


PROFILE = """
name = "p"
[[variants]]
label = "lent"
engine = "gptq"
model = "org/one"
tokenizer = "{name}"
[[variants]]
label = "own"
engine = "bitsandbytes"
model = "org/two"
"""


def options(name: str, folder: Path) -> Mapping[str, object]:
    first, second = loads(PROFILE.format(name=name), where="p.toml", folder=folder).variants
    assert "tokenizer" not in load_request(second, PreparedModel("org/two")).options
    return load_request(first, PreparedModel("org/one")).options


def test_a_profile_names_it_as_it_names_models(tmp_path: Path) -> None:
    assert options("org/two", tmp_path)["tokenizer"] == "org/two"
    assert options("./two", tmp_path)["tokenizer"] == str(tmp_path / "two")
    with pytest.raises(ProfileError, match=r"p\.toml:7: .*tokenizer"):
        options("two words", tmp_path)

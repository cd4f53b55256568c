"""Calibration files of the user: read completely or refused with a line number, and cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.tiny_folder import tokenizer
from quantchat.common.calibration_text import ROLES, parse_jsonl, parse_plain, read
from quantchat.common.input_files import Unreadable
from quantchat.wire.jobs import CollectSamplesJob, CollectSamplesResult, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import calibration_io, collect

texts = st.text(min_size=1).filter(lambda text: text.strip() != "")
messages = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text()})
records = st.one_of(
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"messages": st.lists(messages, min_size=1, max_size=4)}),
)
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@given(st.lists(records, min_size=1), st.booleans(), st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_what_is_written_as_json_lines_is_read_again(
    written: list[dict[str, Any]], ascii_only: bool, between: str
) -> None:
    body = between.join(json.dumps(one, ensure_ascii=ascii_only) for one in written)
    assert parse_jsonl(body) == written


@given(st.text())
def test_any_text_is_records_or_refused(text: str) -> None:
    for parse in (parse_jsonl, parse_plain):
        try:
            found = parse(text)
        except Unreadable as error:
            assert 0 <= error.line <= text.count("\n") + 1
        else:
            assert found
            assert all(one.keys() in ({"text"}, {"messages"}) for one in found)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["messages", "text", "role", "content", "x"]), inner, max_size=3
        ),
    ),
)


@given(values)
def test_any_json_is_a_record_or_refused_with_its_line(value: Any) -> None:
    try:
        (found,) = parse_jsonl(f"\n{json.dumps(value)}")
    except Unreadable as error:
        assert error.line == 2
    else:
        for message in found.get("messages", []):
            assert message["role"] in ROLES
            assert isinstance(message["content"], str)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("7", "neither a text nor messages"),
        ('{"text": " "}', "neither a text nor messages"),
        ('{"messages": []}', "neither a text nor messages"),
        ('{"messages": [{"role": "user"}]}', "content is not text"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "role is not one of"),
        ('{"messages": ["x"]}', "role is not one of"),
    ],
)
def test_a_bad_line_is_named(line: str, what: str) -> None:
    with pytest.raises(Unreadable, match=what) as caught:
        parse_jsonl(f'{{"text": "fine"}}\n\n{line}')
    assert caught.value.line == 3


def test_a_file_is_told_by_its_name(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "a.JSONL"
    for file in (plain, lines):
        file.write_bytes(b'\xef\xbb\xbf{"text": "x"}\n')
    assert read(plain)[0] == [{"text": '{"text": "x"}\n'}]
    assert read(lines)[0] == [{"text": "x"}]
    assert read(plain)[1] == read(lines)[1]
    plain.write_bytes(b"fine\n\xff")
    with pytest.raises(Unreadable, match="UTF-8") as caught:
        read(plain)
    assert caught.value.line == 2
    plain.write_bytes(b" \n")
    with pytest.raises(Unreadable, match="no text"):
        read(plain)


# ------------------------------------------------------------ what is taken of it


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The job, on a model that is no more than its tokenizer."""
    folder, output = tmp_path / "model", tmp_path / "output"
    output.mkdir()
    cutter = tokenizer()
    cutter.chat_template = TEMPLATE
    cutter.save_pretrained(folder)
    monkeypatch.setattr(collect, "prepare_process", lambda workspace: None)

    def go(text: Path, /, **more: Any) -> tuple[CollectSamplesResult, list[dict[str, Any]]]:
        job = CollectSamplesJob(
            load=LoadModel("transformers", str(folder), more.pop("options", {}), device="cpu"),
            part="calibration",
            samples=10,
            held_out=4,
            sample_tokens=20,
            seed=0,
            workspace=Workspace(str(tmp_path), str(output)),
            file=str(text),
            sha256=read(text)[1],
        )
        result = collect.run(replace(job, **more), lambda done, total, detail: None)
        written = (output / "chats.jsonl").read_text(encoding="utf-8").splitlines()
        return result, [json.loads(line) for line in written]

    return go


def test_text_is_cut_by_tokens_and_a_part_is_held_out(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("".join(f"{n:03}," for n in range(200)))  # 800 letters: 40 pieces of 20
    result, taken = run(file)
    assert result == CollectSamplesResult(samples=10, tokens=10 * 20 + 9, found=40, length=20)
    _, held = run(file, part="held out")
    assert len(held) == 4
    both = [one["text"] for one in (*taken, *held)]
    assert len(set(both)) == 14
    assert all(len(text) == 20 and text in file.read_text() for text in both)
    assert run(file)[1] == taken
    assert run(file, seed=1)[1] != taken


@pytest.mark.parametrize(("count", "held", "left"), [(1, 0, 1), (4, 1, 3), (9, 2, 7), (99, 4, 10)])
def test_of_few_samples_few_are_held_out(
    run: Any, tmp_path: Path, count: int, held: int, left: int
) -> None:
    file = tmp_path / "chats.jsonl"
    chat = [{"role": "user", "content": "Hello"}]
    file.write_text("".join(json.dumps({"messages": [*chat, *chat]}) + "\n" for _ in range(count)))
    assert len(run(file)[1]) == left
    assert len(run(file, part="held out")[1]) == held
    if held:
        text = (tmp_path / "output" / "chats.txt").read_text(encoding="utf-8")
        assert text == "\n".join(["[user]Hello[user]Hello"] * held)


def test_a_chat_is_read_in_the_models_template() -> None:
    cutter = tokenizer(begins=True)
    cutter.chat_template = TEMPLATE
    told = calibration_io.ids({"messages": [{"role": "user", "content": "ab"}]}, cutter)
    assert cutter.decode(told) == cutter.decode(
        calibration_io.ids({"text": "[user]ab"}, cutter)[1:]
    )
    assert len(calibration_io.ids({"text": "[user]ab"}, cutter, 3)) == 3


def test_the_template_is_told_what_the_variant_tells_it(run: Any, tmp_path: Path) -> None:
    cutter = tokenizer()
    cutter.chat_template = TEMPLATE + "{% if not think %}no{% endif %}"
    cutter.save_pretrained(tmp_path / "model")
    file = tmp_path / "chats.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "Hello"}]}')
    for options, end in (({}, "no"), ({"chat_template_kwargs": {"think": True}}, "")):
        run(file, options=options)
        assert (tmp_path / "output" / "chats.txt").read_text() == f"[user]Hello{end}"
    chat = {"messages": [{"role": "user", "content": "ab"}]}
    assert (
        len(calibration_io.ids(chat, cutter))
        == len(calibration_io.ids(chat, cutter, None, {"think": True})) + 2
    )


def test_chats_want_a_template(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "Hello"}]}')
    model = tmp_path / "model"
    tokenizer().save_pretrained(model)
    for left in model.glob("chat_template*"):
        left.unlink()
    with pytest.raises(Refused, match="no chat template"):
        run(file)


def test_a_file_that_changes_meanwhile_is_refused(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("words " * 50)
    with pytest.raises(Refused, match="changed after the job was started"):
        run(file, sha256="0" * 64)


def test_a_data_set_that_cannot_be_had(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **more: Any) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\n(and more)")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    (words := tmp_path / "text.txt").write_text("words")
    with pytest.raises(Refused, match="data set org/none: Couldn't reach 'org/none'") as caught:
        run(words, file="", dataset="hub:org/none:train:text")
    assert caught.value.failure.kind == "fetch_failed"
    assert "calibrate on a file" in caught.value.failure.hint


def test_the_rows_of_a_data_set(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{n:020}", "other": "x" * 20} for n in range(30)] + [{"text": ""}]
    asked: list[tuple[str, str]] = []

    def give(name: str, *, split: str, streaming: bool) -> Any:
        asked.append((name, split))
        assert streaming  # not the whole of it is fetched
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", give)
    (words := tmp_path / "text.txt").write_text("words")
    _, taken = run(words, file="", dataset="hub:org/name")
    assert len(taken) == 10
    assert all(one["text"].isdigit() for one in taken)
    _, taken = run(words, file="", dataset="hub:org/name:test:other")
    assert {one["text"] for one in taken} == {"x" * 20}
    assert asked == [("org/name", "train"), ("org/name", "test")]
    with pytest.raises(Refused, match="no column 'body'") as caught:
        run(words, file="", dataset="hub:org/name:test:body")
    assert "text, other" in caught.value.failure.hint

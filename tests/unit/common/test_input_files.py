"""Input files: only regular files up to a size, in UTF-8; JSON Lines by the file's name."""

from __future__ import annotations

import errno
import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.checkpoints.headers import read_folder
from quantchat.common import calibration_text
from quantchat.common.input_files import (
    Unreadable,
    decoded,
    has_lone_surrogate,
    is_json_lines,
    json_lines,
    read_any,
    read_regular,
)
from quantchat.errors import UserError
from quantchat.profile.model import Run
from quantchat.session import prompts
from quantchat.worker.failures import Refused
from quantchat.worker.model.files_check import check_files


def odd(folder: Path, kind: str) -> Path:
    """A path that is no regular file; each would be waited for or read without an end."""
    if kind == "fifo":
        os.mkfifo(folder / "x")
        return folder / "x"
    return {"folder": folder, "device": Path("/dev/zero"), "nul": Path("a\0b")}[kind]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "nul"])
def test_only_regular_files_are_opened(kind: str, tmp_path: Path) -> None:
    gc.collect()  # what other tests have dropped must not be closed in between
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError) as caught:
        read_regular(odd(tmp_path, kind), 100)
    assert caught.value.strerror
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_size_is_a_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2049))
    assert len(read_regular(tmp_path / "x", 2049)) == 2049
    for read, path in ((read_regular, tmp_path / "x"), (read_any, Path("/dev/zero"))):
        with pytest.raises(OSError, match="larger than 2 KiB") as caught:
            read(path, 2048)
        assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("name", ["config.json", "merges.txt", "model.safetensors"])
def test_a_model_with_a_pipe_in_it_is_refused(name: str, tmp_path: Path) -> None:
    """The libraries would wait for its writer, and `plan` did."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(Refused, match=f"{name} is not a regular file"):
        check_files(str(tmp_path))
    with pytest.raises(UserError):
        read_folder(tmp_path)


def test_a_config_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(Refused, match=r"config\.json is not a regular file"):
        check_files(str(tmp_path))
    with pytest.raises(UserError, match="no regular file"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"_attn_implementation": "org/x"},
        {"attn_implementation": {"": "sdpa", "text_config": "org/x@v1:f"}},
        {"text_config": {"_experts_implementation": "org/x"}},
        {"parts": [{"attn_implementation": "org/x"}]},
    ],
    ids=str,
)
def test_a_kernel_of_a_hub_is_not_fetched(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match="names the kernel org/x") as caught:
        check_files(str(tmp_path))
    assert caught.value.failure.kind == "unsupported"


# ------------------------------------------------------------ text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.jsonl", True),
        ("a.NDJSON", True),
        ("a.json", True),
        ("a.jsonl.txt", True),
        ("a.txt", False),
        ("jsonl", False),
        ("a.json.old.txt", False),
    ],
)
def test_json_lines_are_known_by_their_name(name: str, lines: bool) -> None:
    assert is_json_lines(Path("folder.jsonl.d", name)) is lines


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "shift-jis"])
def test_another_encoding_is_refused(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    text = f"{mark}plain\nüö" if encoding == "latin-1" else f"{mark}plain\n日本"
    with pytest.raises(Unreadable, match="is not UTF-8") as caught:
        decoded(text.encode(encoding))
    named = encoding[:6].upper()
    assert (named in str(caught.value)) is encoding.startswith("utf")
    assert caught.value.line >= 1


@given(st.text())
def test_a_byte_order_mark_is_none_of_the_text(text: str) -> None:
    assert decoded(b"\xef\xbb\xbf" + text.encode()) == text


_any_text = st.text(st.characters(exclude_categories=()))
"""With lone surrogates."""
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(_json, max_size=5))
def test_values_are_read_again_or_refused_with_their_line(values: list[Any]) -> None:
    """Refused is exactly what no encoding can hold, wherever in a value it is."""
    halves = [has_lone_surrogate(json.dumps(one, ensure_ascii=False)) for one in values]
    body = "\n".join(map(json.dumps, values))
    if any(halves):
        with pytest.raises(Unreadable, match="half a character") as caught:
            list(json_lines(body))
        assert caught.value.line == halves.index(True) + 1
    else:
        assert [value for _, value in json_lines(body)] == values


@given(_any_text)
def test_half_characters_are_what_cannot_be_encoded(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert has_lone_surrogate(text)
    else:
        assert not has_lone_surrogate(text)


def test_prompts_and_calibration_are_read_alike(tmp_path: Path) -> None:
    """Prompts in .ndjson were sent to models as lines of JSON; half an emoji ended a run."""
    for name in ("x.ndjson", "x.jsonl", "x.jsonl.txt"):
        (tmp_path / name).write_text('\ufeff"one"\n')
        assert prompts.read(tmp_path / name) == ("one",)
        assert calibration_text.read(tmp_path / name)[0] == [{"text": "one"}]
        (tmp_path / name).write_text('"one"\n"cut \\ud83d"\n')
        with pytest.raises(UserError, match=rf"{name}:2: holds half a character"):
            prompts.read(tmp_path / name)
        with pytest.raises(Unreadable, match="half a character") as caught:
            calibration_text.read(tmp_path / name)
        assert caught.value.line == 2


def test_an_argument_that_is_not_utf8_is_refused() -> None:
    """The bytes of an argument that cannot be decoded come as lone surrogates."""
    given = os.fsdecode(b"caf\xe9")
    with pytest.raises(UserError, match="--prompt: is not UTF-8"):
        prompts.from_options([given], None, Run())

"""Snapshots on disk: complete files only, and one line for each unreadable file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.saved_snapshots import hostile_snapshots, snapshot
from quantchat import paths
from quantchat.errors import UserError
from quantchat.snapshot import store
from quantchat.snapshot.schema import SCHEMA_VERSION, Snapshot, json_schema


def body_of(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(store.dumps(snapshot()))
    return {**body, **changes}


def complaint(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        store.loads(data, where="some.json")
    text = str(caught.value)
    assert text.startswith("some.json: ")
    assert "\n" not in text
    return text


# ------------------------------------------------------------ round trip


@given(hostile_snapshots)
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_in_a_file(saved: Snapshot) -> None:
    assert store.loads(store.dumps(saved), where="x") == saved


@given(hostile_snapshots)
@settings(max_examples=50, deadline=None)
def test_a_file_does_nothing_to_a_terminal(saved: Snapshot) -> None:
    data = store.dumps(saved)
    assert data.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])


def test_save_and_load(tmp_path: Path) -> None:
    saved = snapshot(name="Demo: GPTQ / NF4 \udcff\x1b]0;")
    file = store.save(saved, tmp_path)
    assert store.load(file) == saved
    assert file.name == "20261103T132501Z-demo-gptq-nf4-0.json"


# ------------------------------------------------------------ saving


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    file = store.save(snapshot(), tmp_path / "new" / "folder")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_users_own_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path / "mine"))
    file = store.save(snapshot())
    assert file.parent == paths.snapshots_dir() == tmp_path / "mine"
    assert [listed.path for listed in store.recent()] == [file]


def test_a_second_save_takes_no_ones_place(tmp_path: Path) -> None:
    files = [store.save(snapshot(quantchat=str(i)), tmp_path) for i in range(3)]
    assert len(set(files)) == 3
    assert [store.load(file).quantchat for file in files] == ["0", "1", "2"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    first = store.save(snapshot(), tmp_path)
    before = first.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # Only the syscall under test fails; pathlib's replace goes through os as well, since 3.11.
    monkeypatch.setattr(os, failing, full)
    if failing == "replace":
        monkeypatch.setattr(os, "link", full)  # what a new file gets its name by
        for name in ("replace", "hardlink_to"):
            monkeypatch.setattr(Path, name, full)
    with pytest.raises(UserError, match=r"No space left.*--snapshots"):
        store.save(snapshot(quantchat="9"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert first.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        store.save(snapshot(), tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------ loading


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
@settings(deadline=None)
def test_any_bytes_are_a_snapshot_or_one_line(data: bytes) -> None:
    complaint(data)


_mutations = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_snapshot_is_a_snapshot_or_one_line(data: st.DataObject) -> None:
    body = body_of()
    place: Any = body
    for _ in range(data.draw(st.integers(0, 4))):  # go down to some inner object or list
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = [key for key in keys if isinstance(place[key], dict | list) and place[key]]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(inner))]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[data.draw(st.sampled_from(keys))] = data.draw(_mutations)
    try:
        store.loads(json.dumps(body).encode(), where="some.json")
    except UserError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_a_file_cut_short_says_so(length: int) -> None:
    data = store.dumps(snapshot()).rstrip()
    text = complaint(data[: length % len(data)])
    assert "is empty" in text or "is cut short" in text or "is not JSON" in text


def test_what_is_wrong_is_told() -> None:
    whole = store.dumps(snapshot())
    assert "is cut short" in complaint(whole[: len(whole) // 2])
    assert "is empty" in complaint(b" \n")
    assert "not a JSON object" in complaint(b"[]")
    assert "line 1, column 3" in complaint(b"{ nonsense }")
    assert "no Unicode text" in complaint(b'{"a": "\xff"}')
    assert "NaN is not a number" in complaint(b'{"a": NaN}')
    assert "too large a number" in complaint(b'{"a": 1e999}')
    assert "too large a number" in complaint(b'{"a": 9223372036854775808}')
    assert "too large a number" in complaint(b'{"a": -' + b"1" * 10_000 + b"}")
    assert "nested too deeply" in complaint(b"[" * 100_000)
    for version in ("1", 0, -1, True, None, 1.0, [1]):
        text = complaint(json.dumps(body_of(schema_version=version)).encode())
        assert f"schema_version is {json.dumps(version)} (give a" in text
    assert "created" in complaint(json.dumps(body_of(created="2026-11-03T14:25:01")).encode())
    assert "extra" in complaint(json.dumps(body_of(extra=1)).encode())
    assert "is not a snapshot" in complaint(b"{}")


def test_the_place_of_a_wrong_type_is_named() -> None:
    body = body_of()
    body["turns"][0]["answers"][1]["ids"][2] = "4"
    assert "turns.0.answers.1.ids.2" in complaint(json.dumps(body).encode())
    body = body_of()
    body["variants"][1]["model_info"]["kernel"] = 4
    text = complaint(json.dumps(body).encode())
    assert "variants.1.model_info" in text
    assert "kernel" in text


def test_tokens_must_run_in_parallel_and_forward() -> None:
    body = body_of()
    body["turns"][0]["answers"][0]["pieces"].pop()
    assert "differ in length" in complaint(json.dumps(body).encode())
    body = body_of()
    body["turns"][0]["answers"][0]["times_ns"].reverse()
    assert "back in time" in complaint(json.dumps(body).encode())


def test_a_newer_schema_says_update() -> None:
    text = complaint(json.dumps(body_of(schema_version=SCHEMA_VERSION + 1, new=1)).encode())
    assert "newer quantchat" in text
    assert "update quantchat" in text


def test_a_profile_nested_too_deeply_is_one_line() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    complaint(json.dumps(body_of(profile={"a": deep})).encode())


@pytest.mark.parametrize("name", ["nowhere.json", "folder", "fifo", "nul\0.json"])
def test_what_is_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError) as caught:
        store.load(tmp_path / name)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------ listing


def test_the_newest_come_first(tmp_path: Path) -> None:
    times = [
        "2026-11-03T14:00:00+01:00",
        "2026-11-03T14:30:00+02:00",  # 12:30 UTC: the oldest
        "2026-11-03T14:00:00+00:00",
        "2026-11-03T14:00:00+00:00",
    ]
    files = [store.save(snapshot(created=time), tmp_path) for time in times]
    listed = store.recent(tmp_path)
    assert [line.path for line in listed] == [files[3], files[2], files[0], files[1]]
    assert [line.path for line in store.recent(tmp_path, 1)] == [files[3]]
    assert listed[0] == store.SnapshotSummary(
        files[3], "2026-11-03T14:00:00+00:00", "Demo: GPTQ / NF4", ("GPTQ", "NF4"), 1, "chat"
    )


def test_broken_files_are_listed_with_their_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = store.save(snapshot(), tmp_path)
    (tmp_path / "1-cut.json").write_bytes(good.read_bytes()[:50])
    (tmp_path / "2-other.json").write_text('{"created": 1}')
    (tmp_path / "3-folder.json").mkdir()
    (tmp_path / "4-dangling.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "5-large.json").write_bytes(b" " * 10_000)
    (tmp_path / ".hidden.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(store, "LIST_BYTES", 9_000)
    listed = {line.path.name: line.problem for line in store.recent(tmp_path)}
    assert listed.pop(good.name) == ""
    assert listed.keys() == {
        "1-cut.json", "2-other.json", "3-folder.json", "4-dangling.json", "5-large.json",
    }  # fmt: skip
    assert all(listed.values())


def test_only_the_listed_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 10):
        store.save(snapshot(created=f"2026-11-0{day}T00:00:00+00:00"), tmp_path)
    read: list[Path] = []
    really_read = store._read

    def counting(path: Path) -> bytes:
        read.append(path)
        return really_read(path)

    monkeypatch.setattr(store, "_read", counting)
    assert len(store.recent(tmp_path, 3)) == 3
    assert len(read) == 3


def test_a_folder_that_is_not_there_has_no_snapshots(tmp_path: Path) -> None:
    assert store.recent(tmp_path / "nowhere") == []


# ------------------------------------------------------------ schema


def test_the_json_schema_describes_the_dataclasses_too() -> None:
    text = json.dumps(json_schema())
    for name in ("weights_by_dtype", "tokenizer_hash", "times_ns", "decode_tok_s", "pstate"):
        assert name in text


# ------------------------------------------------------------ a file that the user names


def test_a_path_that_ends_in_json_is_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    store.make_ready(file)
    before = os.umask(0o027)
    try:
        assert store.save(snapshot(), file) == file
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    store.make_ready(file)
    assert store.save(snapshot(name="again"), file) == file
    assert store.load(file).name == "again"
    assert [one.name for one in tmp_path.iterdir()] == ["mine.json"]


def test_a_file_that_is_no_snapshot_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "package.json"
    file.write_text('{"name": "x"}')
    with pytest.raises(UserError, match="exists and is not a snapshot"):
        store.make_ready(file)
    with pytest.raises(UserError, match="cannot save the snapshot"):
        store.make_ready(tmp_path / "none" / "mine.json")


def test_a_folder_may_end_in_json(tmp_path: Path) -> None:
    folder = tmp_path / "runs.json"
    folder.mkdir()
    store.make_ready(folder)
    assert store.save(snapshot(), folder).parent == folder

"""Loading a profile: valid files, and one line with a hint for each mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.safe_line import is_clean
from fakes.toml_writer import toml
from quantchat.checkpoints.sources import existing_model
from quantchat.engines.gptq import Gptq
from quantchat.engines.registry import engines
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.profile.load import (
    MAX_BYTES,
    MAX_MISTAKES,
    ProfileError,
    check_paths_exist,
    load,
    loads,
)

FOLDER = Path("/profiles")

GOOD = f"""\
name = "pair"

[[variants]]
label = "GPTQ"
engine = "gptq"
model = "{DEMO_MODEL}"

[variants.quantize]
bits = 4

[[variants]]
label = "NF4"
engine = "bitsandbytes"
model = "org/model@main"

[generation]
system = \"\"\"
Two
lines.\"\"\"
max_new_tokens = 32
"""

ENGINES = ", ".join(sorted(engines()))


def complaints(text: str) -> tuple[str, ...]:
    with pytest.raises(ProfileError) as caught:
        loads(text, where="p.toml", folder=FOLDER)
    return caught.value.lines


def complaint(text: str) -> str:
    (line,) = complaints(text)
    return line


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_good() -> None:
    profile = loads(GOOD, where="p.toml", folder=FOLDER)
    first = profile.variants[0]
    assert isinstance(first, Gptq)
    assert first.quantize is not None
    assert [variant.label for variant in profile.variants] == ["GPTQ", "NF4"]
    assert profile.generation.system == "Two\nlines."


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            'name = "pair"',
            'name = "pair"\ndescripton = ""',
            'p.toml:2: descripton: unknown key (did you mean "description"?)',
        ),
        (
            'label = "NF4"',
            'label = "NF4"\nquant_type = "nf5"',
            'p.toml:13: variants[2].quant_type: "nf5" is not one of nf4, fp4, int8'
            ' (did you mean "nf4"?)',
        ),
        (
            "max_new_tokens = 32",
            'max_new_tokens = "32"',
            'p.toml:20: generation.max_new_tokens: must be a whole number, not "32"',
        ),
        (
            "max_new_tokens = 32",
            "max_new_tokens = 0",
            "p.toml:20: generation.max_new_tokens: 0 is out of range"
            " (must be greater than or equal to 1)",
        ),
        (
            "max_new_tokens = 32",
            "temperature = nan",
            "p.toml:20: generation.temperature: nan is out of range"
            " (must be less than or equal to 10)",
        ),
        (
            "max_new_tokens = 32",
            "bits = 3",
            "p.toml:20: generation.bits: unknown key (it belongs in [variants.quantize])",
        ),
        (
            "bits = 4",
            "bits = 5",
            "p.toml:9: variants[1].quantize.bits: 5 is not one of 2, 3, 4, 8",
        ),
        (
            'engine = "gptq"',
            'engine = "gtpq"',
            f'p.toml:5: variants[1].engine: "gtpq" is not one of {ENGINES} (did you mean "gptq"?)',
        ),
        (
            'engine = "gptq"\n',
            "",
            f"p.toml:3: variants[1].engine: is missing (name one of {ENGINES})",
        ),
        (
            'engine = "gptq"',
            'engine = "auto-gptq"',
            "p.toml:3: variants[1]: auto-gptq needs an environment of its own: "
            '`quantchat env create auto-gptq`, and env = "auto-gptq" here',
        ),
        (
            'label = "NF4"\n',
            "",
            "p.toml:11: variants[2].label: is missing"
            " (Name of the column, different for each variant)",
        ),
        (
            'label = "NF4"',
            'label = "GPTQ"',
            'p.toml:3: variants: 2 variants have the label "GPTQ"; each needs its own',
        ),
        (
            'label = "NF4"',
            'label = "NF4"\ndevice = "gpu"',
            'p.toml:13: variants[2].device: "gpu" does not have the required form'
            " (such as auto, cpu, cuda:0)",
        ),
        (
            '"org/model@main"',
            '"a/b/c"',
            "p.toml:14: variants[2].model: must be a folder, which begins with ./, ../, ~ or /,"
            " or a Hugging Face id, org/name or org/name@revision",
        ),
        (
            '"org/model@main"',
            '"demo:other"',
            f'p.toml:14: variants[2].model: the only model of this kind is "{DEMO_MODEL}"',
        ),
        (
            '"org/model@main"',
            '"~no-such-user/model"',
            "p.toml:11: variants[2]: ~ names a user who does not exist on this machine",
        ),
        (
            '"org/model@main"',
            '"org/model',
            "p.toml:14: illegal character '\\n' (close the quote; put text over several"
            ' lines between """ and """)',
        ),
        (
            "bits = 4",
            "bits = four",
            "p.toml:9: invalid value (put text in quotes; write true, not True)",
        ),
        (
            "bits = 4",
            "bits",
            "p.toml:9: expected '=' after a key in a key/value pair (write key = value)",
        ),
        (
            "bits = 4",
            "bits = [4",
            "p.toml:9: unclosed array (close the bracket, or add the missing comma)",
        ),
        (
            "bits = 4",
            "bits = 4\nbits = 3",
            "p.toml:10: cannot overwrite a value (remove one of the two definitions)",
        ),
        (
            "[generation]",
            "[generation]\n[generation]",
            "p.toml:17: cannot declare ('generation',) twice (remove one of the two definitions)",
        ),
        (
            'Two\nlines."""',
            "Two\nlines.",
            "p.toml:17: unterminated string (close the quote; put text over several lines between "
            '""" and """)',
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_cure(old: str, new: str, line: str) -> None:
    assert complaint(changed(old, new)) == line


def test_one_variant_is_no_comparison() -> None:
    text = GOOD[: GOOD.index('[[variants]]\nlabel = "NF4"')]
    assert complaint(text) == "p.toml:3: variants: needs at least 2 entries, has 1"


def test_mistakes_come_in_the_order_of_the_file() -> None:
    text = changed("bits = 4", "bit = 4\nsamples = 0").replace("max_new", "maxnew")
    assert [line.split(": ")[1] for line in complaints(text)] == [
        "variants[1].quantize.bit",
        "variants[1].quantize.samples",
        "generation.maxnew_tokens",
    ]


def test_as_one_text_the_first_mistake_is_told_and_the_rest_counted() -> None:
    text = changed("bits = 4", "bit = 4\nsamples = 0\nseed = -1")
    with pytest.raises(ProfileError, match=r"^p.toml:9: .* … and 2 more$"):
        loads(text, where="p.toml", folder=FOLDER)


def test_only_so_many_mistakes_are_told() -> None:
    text = "".join(f"k{n} = 1\n" for n in range(5_000))
    lines = complaints(text)
    assert len(lines) == MAX_MISTAKES + 1
    assert lines[-1] == f"… and {5_002 - MAX_MISTAKES} more"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 10_000,
        "a = " + "[" * 10_000 + "]" * 10_000,
        "a = " + "{a = " * 10_000 + "1" + "}" * 10_000,
        "a = " + "9" * 10_000,
        "." * 10_000,
        "a." * 50_000 + "a = 1",
        "[" + "a." * 50_000 + "a]",
        "a." * 1_900 + "a = 1",
        "a = [\n" + "1,\n" * 50_000 + "]",
        "[[variants]]\n" * 10_000,
        "[a]\n" * 10_000,
        'variants = [{engine = ["gptq"]}, {engine = {}}]',
        "variants = [[], 1979-05-27]",
        f"seed = 0x{'f' * 10_000}",
        f"[generation]\nseed = 0x{'f' * 10_000}",
    ],
)
def test_hostile_files_get_a_line(text: str) -> None:
    assert all(is_clean(line) and len(line) < 300 for line in complaints(text))


def test_folders_are_seen_from_the_profile_and_ids_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    models = ["./a", "../b", "~/c", "/d", "org/e", "gpt2", DEMO_MODEL]
    pythons = ["./v/bin/python", "v/bin/python", "~/v/python", "/usr/bin/python3", "python3.10"]
    variants = [{"label": f"m{i}", "engine": "gptq", "model": m} for i, m in enumerate(models)]
    variants += [
        {"label": f"p{i}", "engine": "gptq", "model": "org/e", "python": p}
        for i, p in enumerate(pythons)
    ]
    file = tmp_path / "p.toml"
    file.write_text(toml({"name": "paths", "variants": variants}))
    monkeypatch.chdir(tmp_path.parent)

    profile = load(Path(tmp_path.name, "p.toml"))

    assert [v.model for v in profile.variants[: len(models)]] == [
        f"{tmp_path}/a",
        f"{tmp_path}/../b",
        "/home/someone/c",
        "/d",
        "org/e",
        "gpt2",
        DEMO_MODEL,
    ]
    assert [v.python for v in profile.variants[len(models) :]] == [
        f"{tmp_path}/v/bin/python",
        f"{tmp_path}/v/bin/python",
        "/home/someone/v/python",
        "/usr/bin/python3",
        "python3.10",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty (`quantchat profiles new` writes a starting point)"),
        (b"# nothing but a comment\n", "is empty (`quantchat profiles new` writes a start"),
        (b"a = 1\nb = '\xff'\n", "2: is not UTF-8 (save the file as UTF-8)"),
        (b"#" * (MAX_BYTES + 1), "it is larger than 256 KiB"),
    ],
)
def test_files_that_are_no_text_of_a_profile(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "p.toml"
    file.write_bytes(data)
    with pytest.raises(ProfileError) as caught:
        load(file)
    (line,) = caught.value.lines
    assert line.startswith(f"{file}:")
    assert said in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, said in {
        "missing": "cannot be read: No such file or directory",
        ".": "is a folder",
        "fifo": "is no regular file",
        "a\0b": "cannot be read: ",
        "n" * 300: "cannot be read: File name too long",
    }.items():
        with pytest.raises(ProfileError, match=said) as caught:
            load(tmp_path / name)
        assert all(is_clean(line) for line in caught.value.lines)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(file).name == "pair"
    file.write_bytes(GOOD.replace("bits", "bit").replace("\n", "\r\n").encode())
    with pytest.raises(ProfileError, match=r"p\.toml:9: variants\[1\]\.quantize\.bit: unknown key"):
        load(file)


# ------------------------------------------------------------ what would hold up or end a command


def test_many_lines_of_dots_are_refused_at_once(tmp_path: Path) -> None:
    """Each line was within its limit, and 60 of them took the parser 20 seconds."""
    file = tmp_path / "dots.toml"
    file.write_text("\n".join(f"a{n}{'.a' * 1900} = 1" for n in range(60)))
    with pytest.raises(ProfileError, match=r"dots\.toml:2: too many dots"):
        load(file)


def test_lines_with_some_dots_each_are_read(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    sentences = "\n".join(f"# {'Well... ' * 20}" for _ in range(500))
    file.write_text(f"{sentences}\n{GOOD}")
    assert load(file).name == "pair"


@pytest.mark.parametrize("length", [300, 5000])
def test_a_path_that_is_too_long_is_no_such_folder(length: int, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    variant = '[[variants]]\nlabel = "{}"\nengine = "transformers"\nmodel = "/{}"\n'
    file.write_text('name = "x"\n' + "".join(variant.format(n, "a" * length) for n in "AB"))
    with pytest.raises(ProfileError, match="no such folder"):
        check_paths_exist(load(file), file)
    with pytest.raises(UserError, match="too long"):
        existing_model("/" + "a" * length)


@pytest.mark.parametrize("address", ["http://[::1", "http://[x]/v1", "http://a:b/v1", "http:///v1"])
def test_an_address_that_cannot_be_taken_apart_is_refused(address: str, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    variant = '[[variants]]\nlabel = "{}"\nengine = "openai"\nmodel = "m"\nbase_url = "{}"\n'
    file.write_text('name = "x"\n' + "".join(variant.format(n, address) for n in "AB"))
    with pytest.raises(ProfileError, match="base_url"):
        load(file)


def test_thought_marks_need_an_end() -> None:
    named = changed('engine = "gptq"', 'engine = "gptq"\nthought_marks = ["<think>", ""]')
    assert "ends the thoughts" in complaint(named)

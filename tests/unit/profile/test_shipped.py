"""The shipped profiles are valid, and the memory figures in their descriptions are right."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import pytest

from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.gptq import Gptq
from quantchat.engines.variant import DEMO_MODEL
from quantchat.profile.library import Origin, folder
from quantchat.profile.load import load

SHIPPED = sorted(folder(Origin.SHIPPED).glob("*.toml"))


def test_these_are_shipped() -> None:
    assert {file.stem for file in SHIPPED} >= {
        "article",
        "demo",
        "llama-2-7b-chat",
        "llama-2-13b-chat",
        "llama-3.1-8b-instruct",
        "nf4-double-quant",
        "nf4-vs-fp4",
        "gptq-4bit-vs-3bit",
        "nf4-vs-bf16",
    }


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_each_loads(file: Path) -> None:
    profile = load(file)
    assert profile.description
    assert not any(v.trust_remote_code or v.python for v in profile.variants)


def test_the_demo_compares_gptq_made_here_with_nf4() -> None:
    gptq, nf4, *_ = load(folder(Origin.SHIPPED) / "demo.toml").variants
    assert isinstance(gptq, Gptq)
    assert gptq.quantize is not None
    assert (gptq.quantize.bits, gptq.quantize.group_size) == (4, 64)
    assert isinstance(nf4, BitsAndBytes)
    assert (nf4.quant_type, nf4.double_quant) == ("nf4", True)
    assert gptq.model == nf4.model == DEMO_MODEL


def test_the_article_s_protocol() -> None:
    article = load(folder(Origin.SHIPPED) / "article.toml")
    gptq, nf4 = article.variants
    assert isinstance(gptq, Gptq)
    assert isinstance(nf4, BitsAndBytes)
    assert (nf4.quant_type, nf4.double_quant) == ("nf4", True)
    assert article.generation.max_new_tokens == 1000
    assert (article.run.order, len(article.run.prompts)) == ("in-turn", 5)


# What the comments say of memory, in the form that all of them keep to.
WEIGHTS = re.compile(
    r"(?P<count>[\d.]+e\d) × (?P<bits>[\d.]+) bits(?: \((?P<sum>[\d +/]+)[^)]*\))?"
    r"(?: \+ (?P<rest>[\d.]+) \wB)? = (?P<total>[\d.]+) (?P<unit>\wB)"
)
CACHE = re.compile(
    r"KV cache +(?P<product>2 × [\w ×]+?) = (?P<token>[\d.,]+) (?P<token_unit>MB|bytes) a token: "
    r"(?P<total>[\d.]+) (?P<unit>\wB) for (?P<tokens>\d+) tokens"
)
BOTH = re.compile(r"both +(?P<sum>[\d.() ×+]+) = (?P<total>[\d.]+) GB")
BYTES = {"bytes": 1.0, "MB": 1e6, "GB": 1e9}


def value(formula: str) -> float:
    return float(eval(formula.replace("×", "*"), {"__builtins__": {}}))


def rounds_to(written: str, exact: float) -> bool:
    """Whether `exact` is `written`, as far as that is written out."""
    decimals = len(written.partition(".")[2])
    return abs(float(written.replace(",", "")) - exact) <= 0.501 * 10.0**-decimals


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_its_memory_is_computed(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    comment = text[: text.index("\nname = ")]
    assert "estimated and not measured" in comment

    weights = list(WEIGHTS.finditer(comment))
    assert weights
    for part in weights:
        size = float(part["count"]) * float(part["bits"]) / 8 / BYTES[part["unit"]]
        assert rounds_to(part["total"], size + float(part["rest"] or 0)), part[0]
        assert rounds_to(part["bits"], value(part["sum"] or part["bits"])), part[0]

    cache = CACHE.search(comment)
    assert cache
    token = prod(int(number) for number in re.findall(r"\d+", cache["product"]))
    assert rounds_to(cache["token"], token / BYTES[cache["token_unit"]])
    assert rounds_to(cache["total"], int(cache["tokens"]) * token / BYTES[cache["unit"]])

    both = BOTH.search(comment)
    assert both
    assert rounds_to(both["total"], value(both["sum"]))

"""A score as it may be stored in a snapshot: three models with invented figures."""

from __future__ import annotations

import functools
from typing import Any

import numpy
from hypothesis import strategies as st

from quantchat.snapshot.score import (
    PairRecord,
    ScoredRecord,
    ScoreRecord,
    SettingRecord,
    StorageRecord,
)
from quantchat.statistics.quality import Divergence, Quantity, divergence, perplexity
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ModelInfo

WINDOWS = 8


@functools.lru_cache
def figures(seed: int, far: float) -> tuple[Quantity, Divergence]:
    """A perplexity, and how `far` from a reference of its own it is."""
    rng = numpy.random.default_rng(seed)
    base = rng.gamma(1.2, 2.0, WINDOWS * 31)
    nll = base + rng.normal(far, far, len(base))
    seen = divergence(
        nll=nll,
        reference_nll=base,
        kld=rng.gamma(0.5, far, len(base)),
        top1_agrees=rng.random(len(base)) > far,
        windows=WINDOWS,
    )
    return perplexity(nll, WINDOWS), seen


def setting(**changes: Any) -> SettingRecord:
    fields: dict[str, Any] = {
        "text": "own",
        "text_sha256": "a" * 64,
        "tokens": WINDOWS * 64,
        "positions": WINDOWS * 31,
        "window": 64,
        "stride": 64,
        "context": 33,
        "begin": "",
        "tokenizer_hash": "b" * 64,
        "ids_sha256": "c" * 64,
        "vocabulary": 49152,
    }
    return SettingRecord(**{**fields, **changes})


def read(
    label: str, role: Any, model_info: ModelInfo | None, far: float, **more: Any
) -> ScoredRecord:
    quantity, seen = figures(len(label), far)
    fields: dict[str, Any] = {
        "label": label,
        "role": role,
        "model_info": model_info,
        "note": "",
        "perplexity": quantity,
        "divergence": None if role == "reference" else seen,
        "weights": 100 * 2**20,
        "seconds": 4.2,
    }
    return ScoredRecord(**{**fields, **more})


def score_record(model_info: ModelInfo, **changes: Any) -> ScoreRecord:
    """The bf16 reference, its floor, a variant, and one that failed."""
    fields: dict[str, Any] = {
        "setting": setting(),
        "storage": StorageRecord(form="half precision", bytes=2**20, kld_mean=1e-8, kld_max=1e-6),
        "models": [
            read("bf16", "reference", model_info, 0.001),
            read("bf16, eager attention", "floor", model_info, 0.001),
            read("NF4", "variant", model_info, 0.2, note="made of Q4_1"),
            ScoredRecord.failed("GPTQ", "variant", Failed("internal", "it broke")),
        ],
        "pair": [PairRecord(seen_from="NF4", variant="bf16", divergence=figures(3, 0.2)[1])],
        "unread": ["int8"],
    }
    return ScoreRecord(**{**fields, **changes})


def hostile_scores(text: st.SearchStrategy[str], model_info: ModelInfo) -> st.SearchStrategy[Any]:
    """Scores whose every text is `text`."""
    return st.builds(
        lambda *t: score_record(
            model_info,
            setting=setting(text=t[0], begin=t[1], tokenizer_hash=t[2], text_sha256=t[3]),
            storage=StorageRecord(form=t[4], bytes=5, kld_mean=0.0, kld_max=0.0),
            models=[
                read(t[5], "reference", None, 0.1, note=t[6]),
                ScoredRecord.failed(t[7], "variant", Failed(t[8], t[9], t[0])),
                read(t[0], "variant", None, 0.3, note=t[1]),
            ],
            pair=[PairRecord(seen_from=t[2], variant=t[3], divergence=figures(1, 0.1)[1])],
            unread=[t[4]],
        ),
        *[text] * 10,
    )

"""Snapshots as they may be stored on disk: a plain one, and hostile ones for property tests."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st

from fakes.saved_scores import hostile_scores, score_record
from quantchat.snapshot.schema import (
    AnswerRecord,
    Environment,
    LoadTimesRecord,
    RequestRecord,
    Snapshot,
    TurnRecord,
    VariantRecord,
)
from quantchat.statistics.latency import TurnTiming
from quantchat.system.gpus import GpuSample
from quantchat.system.host import HostSample
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample
from quantchat.wire.messages import Failed, Sampling
from quantchat.wire.variant import Ledger, ModelInfo

MS = 1_000_000
MIB = 2**20

MODEL_INFO = ModelInfo(
    engine="gptq",
    model="/models/smol",
    architecture="LlamaForCausalLM",
    kernel="TorchQuantLinear gptq 4 bits",
    dtype="bfloat16",
    device="cpu",
    device_name="A Processor",
    attention="sdpa",
    decode="eager loop",
    context_length=2048,
    chat_template=True,
    tokenizer_hash="abc",
    threads=2,
    libraries={"torch": "2.13.0"},
    parameters=134_515_008,
)

LEDGER = Ledger(
    device="cpu",
    weights=100 * MIB,
    weights_by_dtype={"int32": 60 * MIB, "bfloat16": 40 * MIB},
    kv_cache=3 * MIB,
    other_live=-1,
    slack=-1,
    non_torch=-1,
    process=700 * MIB,
    peak=900 * MIB,
    at_ns=5,
    overhead={"scales": 6 * MIB, "zeros": 2 * MIB, "indices": MIB},
    peak_at_ns=4,
)

SAMPLE = DeviceSample(
    at_s=12.5,
    host=HostSample("A Processor", 2, 50.0, 4 * 1024 * MIB, 16 * 1024 * MIB),
    gpus=[
        GpuSample(
            0,
            "GPU-0",
            "NVIDIA H100",
            memory_used=5 * MIB,
            throttle=["power cap"],
            missing={"power_w": "this GPU or driver does not report it"},
        )
    ],
    driver="580.95.05",
)


def answer(variant: str, **changes: Any) -> AnswerRecord:
    times = [1_100 * MS, 1_120 * MS, 1_140 * MS]
    fields: dict[str, Any] = {
        "variant": variant,
        "order": "together",
        "state": "done",
        "reason": "eos",
        "request": RequestRecord(
            system="", messages=1, sampling=Sampling(), max_new_tokens=64, threads=1
        ),
        "prompt_tokens": 40,
        "cached_tokens": 8,
        "received_ns": 1_000 * MS,
        "prefilled_ns": 1_090 * MS,
        "ids": [3, 1, 4],
        "pieces": ["Pa", "", "ris."],
        "times_ns": times,
        "text": "Paris.",
        "timing": TurnTiming.of(
            received_ns=1_000 * MS,
            times_ns=times,
            prompt_tokens=40,
            cached_tokens=8,
            prefilled_ns=1_090 * MS,
        ),
        "ledger": LEDGER,
        "failure": None,
    }
    return AnswerRecord(**{**fields, **changes})


def variant(label: str, **changes: Any) -> VariantRecord:
    fields: dict[str, Any] = {
        "label": label,
        "state": "ready",
        "model_info": MODEL_INFO,
        "load": LoadTimesRecord(total_s=5.5, import_s=3.0, weights_s=2.0, warmup_s=0.5),
        "note": "",
        "ledger": LEDGER,
        "memory": ProcessMemory(700 * MIB, "resident"),
        "failure": None,
    }
    return VariantRecord(**{**fields, **changes})


def snapshot(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "created": "2026-11-03T14:25:01+01:00",
        "quantchat": "0.1.0",
        "name": "Demo: GPTQ / NF4",
        "profile": {"name": "demo", "variants": [{"label": "GPTQ"}, {"label": "NF4"}]},
        "shown": ["GPTQ", "NF4"],
        "variants": [variant("GPTQ"), variant("NF4")],
        "turns": [
            TurnRecord(
                number=1,
                prompt="What is the capital of France?",
                answers=[answer("GPTQ"), answer("NF4", order="in-turn")],
                divergence_point=None,
            )
        ],
        "environment": Environment(
            python="CPython 3.11.9", os="Linux", libraries={"torch": "2.13.0"}, device=SAMPLE
        ),
    }
    return Snapshot(**{**fields, **changes})


def scored(**changes: Any) -> Snapshot:
    """What `quantchat score` saves; `changes` are of the score."""
    variants = [variant(label, ledger=None, memory=None) for label in ("GPTQ", "NF4")]
    return snapshot(variants=variants, turns=[], score=score_record(MODEL_INFO, **changes))


# ------------------------------------------------------------ hostile ones


def hostile(text: str) -> Snapshot:
    """A snapshot with `text` wherever text goes."""
    said = answer(text, text=text, pieces=[text, "", ""], failure=Failed("internal", text, text))
    other = answer("other", text=text)
    ran = dataclasses.replace(
        MODEL_INFO, model=text, kernel=text, device_name=text, engine=text, dtype=text
    )
    return snapshot(
        name=text,
        quantchat=text,
        shown=[text, "other"],
        variants=[variant(text, note=text, model_info=ran), variant("other")],
        turns=[TurnRecord(number=1, prompt=text, answers=[said, other], divergence_point=0)],
    )


# Any code point, lone surrogates and controls among them; pairs as JSON has them, joined.
hostile_text = st.text(st.characters(), max_size=20).map(lambda text: json.loads(json.dumps(text)))

_whole = st.integers(-(2**63) + 1, 2**63 - 1)
_json = st.recursive(
    st.none() | st.booleans() | _whole | st.floats(allow_nan=False, allow_infinity=False)
    | hostile_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_text, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip

_failures = st.builds(Failed, kind=hostile_text, reason=hostile_text, hint=hostile_text)


@st.composite
def hostile_answers(draw: st.DrawFn) -> AnswerRecord:
    times = sorted(draw(st.lists(st.integers(0, 2**62), max_size=6)))
    received = draw(st.integers(0, 2**62))
    return answer(
        draw(hostile_text),
        order=draw(st.sampled_from(["together", "in-turn"])),
        state=draw(st.sampled_from(["waiting", "prefill", "streaming", "done", "failed"])),
        reason=draw(hostile_text),
        received_ns=received,
        ids=draw(st.lists(st.integers(0, 2**63 - 1), min_size=len(times), max_size=len(times))),
        pieces=draw(st.lists(hostile_text, min_size=len(times), max_size=len(times))),
        times_ns=times,
        text=draw(hostile_text),
        timing=TurnTiming.of(received_ns=received, times_ns=times),
        ledger=draw(st.none() | st.just(LEDGER)),
        failure=draw(st.none() | _failures),
    )


@st.composite
def hostile_variants(draw: st.DrawFn) -> VariantRecord:
    names = {field.name for field in dataclasses.fields(ModelInfo) if field.type == "str"}
    model_info = dataclasses.replace(
        MODEL_INFO,
        libraries=draw(st.dictionaries(hostile_text, hostile_text, max_size=2)),
        **{name: draw(hostile_text) for name in sorted(names)},
    )
    return variant(
        draw(hostile_text),
        state=draw(hostile_text),
        model_info=draw(st.none() | st.just(model_info)),
        load=draw(st.none() | st.just(variant("").load)),
        note=draw(hostile_text),
        ledger=draw(st.none() | st.just(dataclasses.replace(LEDGER, device=draw(hostile_text)))),
        memory=draw(
            st.none()
            | st.builds(
                ProcessMemory,
                st.none() | st.integers(0, 2**63 - 1),
                source=hostile_text,
                reason=hostile_text,
            )
        ),
        failure=draw(st.none() | _failures),
    )


hostile_turns = st.builds(
    TurnRecord,
    number=_whole,
    prompt=hostile_text,
    answers=st.lists(hostile_answers(), max_size=2),
    divergence_point=st.none() | st.integers(0, 2**63 - 1),
)

hostile_snapshots = st.builds(
    snapshot,
    created=st.datetimes(timezones=st.timezones(), allow_imaginary=False).map(
        lambda time: time.isoformat()
    ),
    quantchat=hostile_text,
    name=hostile_text,
    profile=st.dictionaries(hostile_text, _json, max_size=3),
    shown=st.lists(hostile_text, max_size=2),
    variants=st.lists(hostile_variants(), max_size=2),
    turns=st.lists(hostile_turns, max_size=2),
    score=st.none() | hostile_scores(hostile_text, MODEL_INFO),
)

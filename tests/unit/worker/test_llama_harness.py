"""What lm-evaluation-harness is answered by a model that llama.cpp computes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from gguf import GGMLQuantizationType

from fakes import tiny_gguf
from fakes.llama_models import load_tiny

if TYPE_CHECKING:
    from quantchat.worker.llama.harness import LlamaLM

TEXT = "the other day they were there, and then the three of them left for the north"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LlamaLM:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    file = tmp_path_factory.mktemp("exact") / "tiny.gguf"
    tiny_gguf.write_tiny(file, GGMLQuantizationType.F32)
    model = load_tiny(file.parent, type_k="f32", type_v="f32")
    from quantchat.worker.llama.harness import LlamaLM

    return LlamaLM(model, {})


def asked(*arguments: Any) -> SimpleNamespace:
    """A request as the harness makes it."""
    return SimpleNamespace(args=arguments)


def likelihood(lm: LlamaLM, ids: list[int], first: int) -> float:
    """The log-likelihood of `ids` from index `first` on, computed in one pass."""
    context = lm._model.context(outputs=len(ids))
    context.run(ids, logit_rows=len(ids))
    logprobs = torch.log_softmax(torch.from_numpy(context.logits(len(ids)).copy()), -1)
    context.close()
    return float(sum(logprobs[n - 1, ids[n]] for n in range(first, len(ids))))


def test_continuations_of_one_question_are_as_likely_as_in_one_pass(lm: LlamaLM) -> None:
    ends = (" left", " the", " " + TEXT * 3)
    found = lm.loglikelihood([asked(TEXT, end) for end in ends])
    for end, (total, greedy) in zip(ends, found, strict=True):
        context = lm.tok_encode(TEXT)
        ids = lm.tok_encode(TEXT + end)
        assert total == pytest.approx(likelihood(lm, ids, len(context)), rel=1e-3, abs=5e-2)
        assert not greedy


def test_a_greedy_continuation_is_known_as_one(lm: LlamaLM) -> None:
    text = lm.generate_until([asked(TEXT, {"until": [], "max_gen_toks": 3})])[0]
    given, said = lm.tok_encode(TEXT), lm.tok_encode(TEXT + text)
    if said[: len(given)] == given and "�" not in text and text:
        _, greedy = lm._likelihood(given, said[len(given) :][:1])
        assert greedy


def test_a_text_without_context_begins_after_the_first_token(lm: LlamaLM) -> None:
    (found,) = lm.loglikelihood_rolling([asked(TEXT)])
    ids = [lm.prefix_token_id, *lm.tok_encode(TEXT)]
    assert found == pytest.approx(likelihood(lm, ids, 1), rel=1e-3)


def test_an_answer_ends_at_a_stop_sequence_and_is_counted(lm: LlamaLM) -> None:
    heard: list[tuple[str, str]] = []
    hook = SimpleNamespace(add_partial=lambda kind, _key, answer: heard.append((kind, answer)))
    lm.set_cache_hook(hook)
    free, stopped = (
        lm.generate_until([asked(TEXT, {"until": until, "max_gen_toks": 12})])[0]
        for until in ([], [None])
    )
    assert free == stopped and free
    stop = free[len(free) // 2]
    (cut,) = lm.generate_until([asked(TEXT, {"until": [stop], "max_gen_toks": 12})])
    assert cut == free.split(stop)[0]
    assert [kind for kind, _ in heard] == ["generate_until"] * 3


def test_the_chat_template_is_the_files(lm: LlamaLM) -> None:
    text = lm.apply_chat_template([{"role": "user", "content": "so"}])
    assert text == "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n"


def test_the_job_asks_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the same function as for torch, with the harness's own evaluation of a task."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    tiny_gguf.write_tiny(tmp_path / "tiny.gguf")
    model = load_tiny(tmp_path)
    from quantchat.wire.jobs import EvaluateJob, Workspace
    from quantchat.worker.jobs import evaluate
    from quantchat.worker.llama.harness import LlamaLM

    job = EvaluateJob(model.command, [], Workspace(str(tmp_path), str(tmp_path)))
    monkeypatch.setattr(evaluate, "load_or_refuse", lambda command, report: model)
    lm, model_info = evaluate._loaded_model(job, lambda *counts: None)
    assert isinstance(lm, LlamaLM) and model_info().architecture == "llama (GGUF)"

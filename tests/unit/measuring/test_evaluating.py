"""Tasks from profile to snapshot: the real harness on real tiny models in this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fakes.in_process_jobs import InProcessJobs
from fakes.openai_server import FakeServer
from fakes.tiny_folder import tiny_folder, tokenizer
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.errors import ModelsFailed
from quantchat.features.tasks import tables as report
from quantchat.measuring.evaluating import OWN, EvaluationPlan, evaluate, task_named
from quantchat.profile.model import Profile
from quantchat.session.reference import reference_of
from quantchat.snapshot import store
from quantchat.snapshot.evaluation import EvaluationRecord, flips, obstacles
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.flips import Flips
from quantchat.worker.jobs import evaluate as job

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: quantchat[eval]")
pytestmark = pytest.mark.usefixtures("own_folders")

TASK = """
task: letters
dataset_path: json
dataset_kwargs:
  data_files: {test: letters.jsonl, train: letters.jsonl}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 3}
"""


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(job, "prepare_process", lambda workspace: None)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    tiny_folder(home / "base")
    tiny_folder(home / "far", scale=2.0)
    return home


@pytest.fixture
def task(tmp_path: Path) -> Path:
    words = ("oak", "elm", "ash", "fir", "yew", "bay", "fig", "nut", "box", "gum", "tea", "rye")
    lines = [
        {"question": f"The {word} is", "choices": [" old", " tall", " green"], "answer": n % 3}
        for n, word in enumerate(words)
    ]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = tmp_path / "letters.yaml"
    file.write_text(TASK)
    return file


def profile(models: Path, *names: str) -> Profile:
    variants = [
        {"label": n, "engine": "transformers", "model": str(models / n), "device": "cpu"}
        for n in names
    ]
    return Profile.model_validate({"name": "Tiny", "variants": variants})


async def done(
    models: Path, *tasks: str, jobs: InProcessJobs | None = None, **more: Any
) -> tuple[Snapshot, EvaluationRecord]:
    jobs, asked = jobs or InProcessJobs(), profile(models, "base", "far")
    plan = EvaluationPlan(tasks, reference_of(asked, "base"), **more)
    return await evaluate(
        asked, plan, provider=CheckpointBuilder(start=jobs.start), start=jobs.start
    )


async def test_from_profile_to_snapshot(models: Path, task: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    jobs = InProcessJobs(lambda label, step: steps.append(f"{label} {step.detail} {step.done}"))
    snapshot, found = await done(models, str(task), jobs=jobs)

    assert [(m.label, m.role) for m in found.models] == [("base", "reference"), ("far", "variant")]
    assert not found.undone
    (theirs,), (ours,) = found.models[0].tasks, found.models[1].tasks
    assert (ours.task, ours.version, ours.few_shot, ours.questions) == ("letters", "3", 0, 12)
    assert ours.questions_sha256 == theirs.questions_sha256
    (figure,) = ours.figures
    assert (figure.metric, figure.filter, len(figure.right)) == ("acc", "none", 12)
    assert figure.value == figure.right.count("1") / 12
    assert figure.error is not None
    assert "base answering 36" in steps  # twelve questions of three choices

    assert store.load(store.save(snapshot, tmp_path / "saved")) == snapshot
    assert [one.kind for one in store.recent(tmp_path / "saved")] == ["tasks"]
    seen = flips(ours, figure, found.reference)
    assert seen == Flips.between(theirs.figures[0].right, figure.right)


async def test_questions_about_one_passage_are_found_through_the_harness(
    models: Path, task: Path
) -> None:
    file = task.with_name("letters.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["passage"] = f"Of trees, part {number // 4}."
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, found = await done(models, str(task), limit=8)
    (result,) = found.models[1].tasks
    assert result.passages == [0] * 4 + [1] * 4
    seen = flips(result, result.figures[0], found.reference)
    assert seen is not None
    assert (seen.questions, seen.clusters) == (8, 2)
    assert "8 questions about 2 passages" in " ".join(report.facts(found))


async def test_examples_and_a_limit_are_other_questions(models: Path, task: Path) -> None:
    _, plain = await done(models, str(task))
    _, shown = await done(models, str(task), few_shot=2, limit=5)
    (result,) = shown.models[0].tasks
    assert (result.few_shot, result.questions) == (2, 5)
    assert obstacles([plain, plain]) == []
    assert obstacles([plain, shown]) == ["letters differs: its version, examples or questions"]


async def test_the_shipped_task_needs_no_hub(models: Path) -> None:
    _, found = await done(models, task_named(OWN), limit=3)
    (result,) = found.models[0].tasks
    assert (result.task, result.questions, result.few_shot) == ("quantchat_own", 3, 0)
    assert [figure.metric for figure in result.figures] == ["acc", "acc_norm"]


def test_the_shipped_questions_are_whole() -> None:
    lines = Path(task_named(OWN)).with_name("own.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    assert len({one["question"] for one in questions}) == len(questions) > 60
    assert all(len(set(one["choices"])) == 4 for one in questions)
    assert {one["answer"] for one in questions} == {0, 1, 2, 3}


async def test_a_model_that_fails_does_not_stop_the_others(models: Path, task: Path) -> None:
    asked = profile(models, "base", "gone", "far")
    plan = EvaluationPlan((str(task),), reference_of(asked, "base"), limit=2)
    jobs = InProcessJobs()
    _, found = await evaluate(
        asked, plan, provider=CheckpointBuilder(start=jobs.start), start=jobs.start
    )
    assert [bool(model.failure) for model in found.models] == [False, True, False]
    assert "no such folder" in report.evaluation_warnings(found)[0]


def rewritten(task: Path, text: str) -> str:
    task.write_text(text)
    return str(task)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("task: [", "cannot read letters.yaml"),
        ("- a list", "cannot read letters.yaml"),
        ("group: many", "is not a task of the harness"),
        (TASK + "process_docs: !function gone.docs", "cannot read letters.yaml"),
        (TASK.replace("letters.jsonl", "gone.jsonl"), "cannot get the questions of a task"),
        (TASK.replace("multiple_choice", "dance"), "cannot create the task"),
    ],
)
async def test_a_bad_task_is_told_once(models: Path, task: Path, written: str, said: str) -> None:
    jobs = InProcessJobs()
    with pytest.raises(ModelsFailed, match=said) as told:
        await done(models, rewritten(task, written), jobs=jobs)
    assert told.value.where == ""  # it is not the model's
    assert len(jobs.places) == 1


async def test_a_task_that_the_harness_does_not_know(models: Path) -> None:
    with pytest.raises(ModelsFailed, match="the harness has no task arc_esay") as told:
        await done(models, "arc_esay")
    assert "arc_easy" in told.value.hint


async def test_the_template_is_told_what_the_variants_tell_it(
    models: Path, task: Path, tmp_path: Path
) -> None:
    cutter = tokenizer()
    cutter.chat_template = "{{ messages[0].content }}{% if think %} Think.{% endif %}"
    cutter.save_pretrained(tiny_folder(tmp_path / "chats"))
    common = {"engine": "transformers", "model": str(tmp_path / "chats"), "device": "cpu"}
    variants = [
        {**common, "label": str(told), "chat_template_kwargs": told}
        for told in ({}, {"think": False}, {"think": True})
    ]
    asked, jobs = Profile.model_validate({"name": "Tiny", "variants": variants}), InProcessJobs()
    plan = EvaluationPlan((str(task),), asked.variants[0], limit=2, chat_template=True)
    _, found = await evaluate(
        asked, plan, provider=CheckpointBuilder(start=jobs.start), start=jobs.start
    )
    hashes = [one.tasks[0].questions_sha256 for one in found.models]
    assert hashes[0] == hashes[1] != hashes[2]


async def test_a_model_without_a_chat_template(models: Path, task: Path) -> None:
    with pytest.raises(ModelsFailed, match="no chat template"):
        await done(models, str(task), chat_template=True)


def serving(folder: Path, *, by_id: bool) -> Any:
    """How a server of the model in `folder` answers: with vLLM's `prompt_logprobs` or an echo."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    letters = tokenizer()

    def answer(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        if body.get("stream"):
            chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
            return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        if "prompt_logprobs" not in body and "echo" not in body:
            return 200, {"choices": [{"index": 0, "text": said(body)}]}
        if not by_id and "prompt_logprobs" in body:
            return 400, {"error": {"message": "unknown parameter prompt_logprobs"}}
        ids = body["prompt"]
        with torch.inference_mode():
            rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        named: list[Any] = [None]
        own: list[Any] = [None]
        top: list[Any] = [None]
        for row, token in zip(rows, ids[1:], strict=False):
            likeliest = {token: float(row[token]), int(row.argmax()): float(row.max())}
            named.append({str(one): {"logprob": value} for one, value in likeliest.items()})
            own.append(float(row[token]))
            top.append({letters.decode([one]): value for one, value in likeliest.items()})
        if by_id:
            return 200, {"choices": [{"index": 0, "text": "x", "prompt_logprobs": named}]}
        echoed = {"token_logprobs": own, "top_logprobs": top}
        return 200, {"choices": [{"index": 0, "text": "x", "logprobs": echoed}]}

    def said(body: dict[str, Any]) -> str:
        ids = torch.tensor([body["prompt"]])
        found = model.generate(ids, max_new_tokens=body["max_tokens"], do_sample=False)
        return str(letters.decode(found[0, ids.shape[1] :]))

    return answer


async def beside_a_server(models: Path, task: Path, server: FakeServer) -> EvaluationRecord:
    """Evaluate the local model `base` and one behind `server`."""
    served = {"label": "served", "engine": "openai", "model": "tiny", "base_url": server.url}
    local = profile(models, "base", "far").variants[0].model_dump(exclude_none=True)
    asked = Profile.model_validate({"name": "Tiny", "variants": [local, served]})
    jobs = InProcessJobs()
    plan = EvaluationPlan((str(task),), reference_of(asked, "base"))
    _, found = await evaluate(
        asked, plan, provider=CheckpointBuilder(start=jobs.start), start=jobs.start
    )
    return found


@pytest.mark.parametrize("by_id", [True, False], ids=["prompt_logprobs", "echo"])
async def test_a_server_gives_what_its_model_gives(
    models: Path, task: Path, server: FakeServer, by_id: bool
) -> None:
    server.recorded = serving(models / "base", by_id=by_id)
    found = await beside_a_server(models, task, server)
    here, there = found.models
    assert there.failure is None and there.model_info is not None
    assert there.model_info.device == "server"
    assert here.tasks == there.tasks  # counts, and each question with its answer


async def test_a_server_that_gives_no_log_probabilities_is_refused(
    models: Path, task: Path, server: FakeServer
) -> None:
    found = await beside_a_server(models, task, server)
    failure = found.models[1].failure
    assert failure is not None and "no log-probabilities" in failure.reason


async def test_what_was_done_before_a_stop_is_kept(
    models: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(label: str, step: Any) -> None:
        if label == "far":
            os.kill(os.getpid(), signal.SIGINT)

    _, found = await done(models, str(task), jobs=InProcessJobs(told))
    assert [model.label for model in found.models] == ["base"]
    assert found.undone == ["far"]
    assert report.evaluation_warnings(found) == ["stopped before the end, not asked: far"]


async def test_the_reference_is_asked_twice_for_the_noise_floor(models: Path, task: Path) -> None:
    _, found = await done(models, task_named(str(task)), floor="attention")
    assert [one.role for one in found.models] == ["reference", "floor", "variant"]
    reference, floor, _ = found.models
    assert floor.model_info is not None and reference.model_info is not None
    assert floor.model_info.attention != reference.model_info.attention
    (its,) = floor.tasks
    seen = flips(its, its.figures[0], found.reference)
    assert seen is not None and seen.lost + seen.gained <= 1
    rows = [row[0] for table in report.tables(found) for row in table.rows]
    assert "noise floor" in [cell.aside for cell in rows]


@pytest.fixture
def ending(models: Path, tmp_path: Path) -> Path:
    """Return copies of the models whose tokenizer has an end-of-sequence token, to write with."""
    home = tmp_path / "ending"
    shutil.copytree(models, home)
    its = tokenizer()
    its.eos_token = its.bos_token
    for folder in home.iterdir():
        its.save_pretrained(folder)
    return home


@pytest.fixture
def written(task: Path) -> Path:
    """Return a task whose answers are written."""
    body = TASK.replace("multiple_choice", "generate_until").replace("acc,", "exact_match,")
    body = body.replace('doc_to_choice: "{{choices}}"\n', "").replace("{{answer}}", "old")
    task.write_text(body + 'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 5}\n')
    return task


async def test_written_answers_have_lengths(ending: Path, written: Path) -> None:
    _, found = await done(ending, task_named(str(written)), limit=3)
    for model in found.models:
        (its,) = model.tasks
        assert len(its.answer_tokens) == 3 and max(its.answer_tokens) > 0
        assert its.thought_tokens == [0, 0, 0]
    assert any("mean length" in table.title for table in report.tables(found))

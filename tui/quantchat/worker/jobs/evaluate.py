"""Runs tasks, such as multiple-choice questions, with EleutherAI's lm-evaluation-harness.

Published accuracies come from the harness, so the harness asks all questions and counts the right
answers. Its results are reported for each question, because two models are compared by the
questions on which their answers differ. Source: https://github.com/EleutherAI/lm-evaluation-harness
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import EvaluateJob, EvaluateResult, TaskFigure, TaskResult
from quantchat.wire.variant import ModelInfo
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.jobs.job_env import prepare_process
from quantchat.worker.loaders import loader_of
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.model.tokenizer import fetch_named, load_tokenizer
from quantchat.worker.report import Report
from quantchat.worker.scoring.text_scoring import DECODE, load_or_refuse
from quantchat.worker.servers.opening import Opener
from quantchat.worker.thoughts import server_splitter, split_at_end

SEED = 1234
"""Seed of the harness's sampling and few-shot examples."""

PASSAGES = (
    "passage", "context", "article", "story", "paragraph", "premise", "support", "background",
    "document",
)  # fmt: skip
"""Names of fields, in the documents of the harness's tasks, that hold a text about which there may
be several questions: in BoolQ and DROP, SQuAD and Social IQa, RACE, CoQA, MultiRC, ANLI and COPA,
SciQ."""

_REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
"""The methods by which the harness asks a model."""


def run(job: EvaluateJob, report: Report) -> EvaluateResult:
    """Run the tasks on the model. Raises Refused, of kind `bad_task` for an unavailable task."""
    report(0, 0, "importing libraries")
    if importlib.util.find_spec("lm_eval") is None:
        raise Refused(
            "missing_library",
            "lm-evaluation-harness is not installed for this interpreter",
            "python -m pip install 'quantchat[eval]' (where quantchat is not installed: lm_eval)",
        )
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    prepare_process(job.workspace)
    if job.load.option("kv_cache", ""):
        raise Refused(
            "unsupported",
            "lm-evaluation-harness computes without the variant's quantized KV cache",
            "evaluate without kv_cache, and measure its effect with quantchat score",
        )
    tasks = _tasks(job.tasks, report)
    served = getattr(loader_of(job.load), "SERVER", False)
    lm, model_info = _served_model(job, report) if served else _loaded_model(job, report)
    if job.template and not lm.tokenizer.chat_template:
        raise Refused(
            "unsupported", "the model has no chat template", "evaluate without --chat-template"
        )
    began = time.monotonic()
    results = _evaluate(lm, tasks, job, report)
    return EvaluateResult(
        model_info=model_info(),
        harness=metadata.version("lm_eval"),
        seconds=round(time.monotonic() - began, 2),
        tasks=[_result(name, results, lm.tokenizer) for name in sorted(results["samples"])],
    )


# ---------------------------------------------------------------- tasks


def _tasks(named: list[str], report: Report) -> Any:
    """Return the harness's tasks, with their questions."""
    from lm_eval.tasks import TaskManager

    report(0, 0, "reading the tasks")
    files = [name for name in named if Path(name).is_absolute()]
    manager = TaskManager(include_defaults=len(files) < len(named))  # loading its index is slow
    unknown = [name for name in named if name not in files and not _is_known_task(manager, name)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=3)
        raise Refused(
            "bad_task",
            f"the harness has no task {unknown[0]}",
            f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists all tasks",
        )
    specs = [_of_file(Path(name)) if name in files else name for name in named]
    try:
        return manager.load(specs)
    except (OSError, ConnectionError) as error:
        raise Refused(
            "bad_task",
            f"cannot get the questions of a task: {first_line(error)}",
            "check the network and the paths in the task",
        ) from error
    except Exception as error:  # a task's own code and the harness's checks raise any type
        raise Refused(
            "bad_task",
            f"cannot create the task: {first_line(error)}",
            "correct the task's YAML file",
        ) from error


def _is_known_task(manager: Any, name: str) -> bool:
    return name in manager.all_tasks or any(sign in name for sign in "*?[")


def _of_file(path: Path) -> dict[str, object]:
    """Return the task in a YAML file, with absolute data paths. Its `!function` tags run code."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config: Any = load_yaml(path, resolve_func=True)
    except (OSError, ValueError, ImportError, yaml.YAMLError) as error:
        raise Refused(
            "bad_task",
            f"cannot read {path.name}: {first_line(error)}",
            "correct the task's YAML file",
        ) from error
    if not isinstance(config.get("task"), str) or "dataset_path" not in config:
        raise Refused(
            "bad_task",
            f"{path.name} is not a task of the harness: it needs `task` and `dataset_path`",
            "see https://github.com/EleutherAI/lm-evaluation-harness, docs/task_guide.md",
        )
    kwargs = config.get("dataset_kwargs") or {}
    if "data_files" in kwargs:
        config["dataset_kwargs"] = {**kwargs, "data_files": _beside(path, kwargs["data_files"])}
    return dict(config)


def _beside(path: Path, files: Any) -> Any:
    """Return `files` with relative paths resolved against the folder of the task in `path`."""
    if isinstance(files, dict):
        return {split: _beside(path, one) for split, one in files.items()}
    if isinstance(files, list):
        return [_beside(path, one) for one in files]
    return files if "://" in str(files) else str(path.parent / str(files))


# ---------------------------------------------------------------- answering


def _loaded_model(job: EvaluateJob, report: Report) -> tuple[Any, Callable[[], ModelInfo]]:
    """Return the loaded model with the harness's interface, and a function for its `ModelInfo`."""
    loaded = load_or_refuse(job.load, report)
    variables = job.load.template_variables
    if not isinstance(loaded, Loaded):
        from quantchat.worker.llama.harness import LlamaLM

        return LlamaLM(loaded, variables), lambda: loaded.model_info(DECODE)
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=job.batch,
        trust_remote_code=False,
        chat_template_args=variables,
    )
    return lm, lambda: loaded.model_info(DECODE)


def _served_model(job: EvaluateJob, report: Report) -> tuple[Any, Callable[[], ModelInfo]]:
    """Connect to the job's server; return the same as `_loaded_model`. Raises Refused."""
    from quantchat.worker.servers.harness import ServedLM

    if not job.tokenizer:
        raise Refused(
            "unsupported",
            "the tokenizer for the server is missing: it is taken from the reference, which failed",
            "see the failure of the reference",
        )
    load = fetch_named(replace(job.load, options={"tokenizer": job.tokenizer}))
    tokenizer = load_tokenizer(load)
    opener = Opener(lambda stage, detail: report(0, 0, detail or stage), lambda _: None)
    client = opener.open(job.load, loader_of(job.load)).decoder.client
    return ServedLM(client, tokenizer, job.load.template_variables), client.model_info


def _evaluate(lm: Any, tasks: Any, job: EvaluateJob, report: Report) -> Any:
    """Ask all questions; return the result of `lm_eval.evaluator.evaluate`."""
    from lm_eval import evaluator
    from transformers import set_seed

    report(0, 0, "preparing the questions")
    for task in tasks["tasks"].values():
        _few_shot(task, job.few_shot)
    set_seed(SEED)
    with _progress_reported(lm, report):
        return evaluator.evaluate(
            lm,
            tasks,
            limit=job.limit or None,
            bootstrap_iters=0,
            apply_chat_template=job.template,
            fewshot_as_multiturn=job.template,
        )


def _few_shot(task: Any, wanted: int) -> None:
    """Set the number of few-shot examples; -1: the task's own. A task that sets 0 keeps 0."""
    own = task.get_config("num_fewshot")
    if wanted >= 0 and own != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


class _AnswerCounter:
    """Counts answers, in place of the harness's answer cache, which is called for each answer."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.done = self.total = 0

    def add_partial(self, attr: str, request: Any, answer: Any) -> None:
        """Count one answer."""
        del attr, request, answer
        self.done += 1
        self._report(min(self.done, self.total), self.total, "answering")


@contextlib.contextmanager
def _progress_reported(lm: Any, report: Report) -> Iterator[None]:
    """Report each answer while the context lasts; the total grows as the harness asks."""
    counter = _AnswerCounter(report)
    lm.set_cache_hook(counter)

    def counting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def ask_and_count(requests: list[Any], *more: Any, **named: Any) -> Any:
            counter.total += len(requests)
            return ask(requests, *more, **named)

        return ask_and_count

    for name in _REQUESTS:
        setattr(lm, name, counting(getattr(lm, name)))
    yield


# ---------------------------------------------------------------- results


def _result(task: str, results: Any, tokenizer: Any) -> TaskResult:
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    first_filter = [sample for sample in samples if sample["filter"] == filters[0]]
    digest = hashlib.sha256()
    for sample in first_filter:
        for part in ("doc_hash", "prompt_hash", "target_hash"):
            digest.update(sample[part].encode())
    lengths = [
        _lengths(text, tokenizer) for sample in first_filter for text in _generated_texts(sample)
    ]
    passages = passages_of([sample["doc"] for sample in first_filter])
    return TaskResult(
        task=task,
        version=str(results["versions"].get(task)),
        few_shot=int(results["configs"][task].get("num_fewshot") or 0),
        questions=len(first_filter),
        questions_sha256=digest.hexdigest(),
        figures=list(_figures(samples, results["results"][task], passages)),
        passages=passages,
        answer_tokens=[answer for answer, _ in lengths],
        thought_tokens=[thought for _, thought in lengths],
    )


def _generated_texts(sample: Any) -> Iterator[str]:
    """Yield the first text that a model generated for a question; none if it only rated texts."""
    for answers in sample["resps"][:1]:
        first = answers[0] if isinstance(answers, list) and answers else answers
        if isinstance(first, str):
            yield first


def _lengths(text: str, tokenizer: Any) -> tuple[int, int]:
    """Return the number of tokens of the answer in `text`, and of the thoughts before it."""
    splitter = server_splitter(None)
    pieces = [splitter.feed(text), splitter.end()]
    answer, thoughts = ("".join(part) for part in zip(*pieces, strict=True))
    # If the chat template opened the thoughts, only their end is in the text.
    if not thoughts:
        answer, thoughts = split_at_end(text)
    counts = [len(tokenizer.encode(part, add_special_tokens=False)) for part in (answer, thoughts)]
    return counts[0], counts[1]


def passages_of(questions: list[Any]) -> list[int]:
    """Return for each question the index of its passage; empty if no passage is shared.

    `questions` are the questions with their fields, as the harness stores them. The passages are in
    the first field of `PASSAGES` whose text is shared by some questions, but not by all: if a text
    is the same in all questions, it is a part of the prompt. A question without this field gets an
    index of its own.
    """
    for name in PASSAGES:
        numbers: dict[str, int] = {}
        found = []
        for place, question in enumerate(questions):
            value = question.get(name) if isinstance(question, dict) else None
            key = json.dumps(value, default=str).strip() if value else f"{place}"
            found.append(numbers.setdefault(key, len(numbers)))
        if 1 < len(numbers) < len(questions):
            return found
    return []


def _figures(
    samples: list[Any], totals: dict[str, object], passages: list[int]
) -> Iterator[TaskFigure]:
    """Yield a figure for each metric of a task and each of the harness's filters.

    `totals` has the harness's results of the task, with keys such as `acc,none` (metric, filter).
    """
    for key, value in totals.items():
        metric, _, chosen = key.partition(",")
        if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        each = [sample.get(metric) for sample in samples if sample["filter"] == chosen]
        of_questions = [float(one) for one in each if isinstance(one, int | float)]
        mean = bool(each) and len(of_questions) == len(each) and _is_mean(of_questions, value)
        is_right_or_wrong = mean and set(of_questions) <= {0.0, 1.0}
        yield TaskFigure(
            metric=metric,
            filter=chosen,
            value=float(value),
            error=_error(of_questions, passages) if mean else None,
            right="".join(str(int(one)) for one in of_questions) if is_right_or_wrong else "",
        )


def _is_mean(values: list[float], total: float) -> bool:
    return abs(statistics.fmean(values) - total) < 1e-9


def _error(values: list[float], passages: list[int]) -> float | None:
    """Return the standard error of the mean of `values`; None for a single value.

    It is the larger of two errors: one with questions as independent units, one with passages as
    independent units (cluster-robust).
    """
    if len(values) < 2:
        return None
    by_question = statistics.stdev(values) / math.sqrt(len(values))
    if not passages:
        return by_question
    mean, sums = statistics.fmean(values), [0.0] * (max(passages) + 1)
    for number, value in zip(passages, values, strict=True):
        sums[number] += value - mean
    count = len(sums)
    squares = math.fsum(one**2 for one in sums)
    by_passage = math.sqrt(squares * count / (count - 1)) / len(values)
    return max(by_question, by_passage)

"""One model does tasks: multiple choice and the like, through EleutherAI's lm-evaluation-harness.

No stage of making a checkpoint. The harness is what published accuracies come from, so nothing of
it is worked out here: it asks, the loaded model answers, and what it counts is handed on, document
by document, since two models are compared by the answers that changed.
https://github.com/EleutherAI/lm-evaluation-harness
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from quantchat.wire.codec import from_json
from quantchat.wire.messages import Load
from quantchat.worker import loaders
from quantchat.worker.failures import Refused, describe, first_line
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.job_env import settle
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.scoring.text_scoring import DECODE

SEED = 1234
"""What the harness seeds its own sampling and few-shot examples with."""

BAD_TASK = "bad_task"
"""Kind of a failure that is the task's, so that no other model need be asked."""

_ASKING = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Let the model of `load` (the fields of `Load`) do the tasks of `options`.

    `tasks` are names that the harness knows, or paths of its YAML files; `limit` documents of each
    are done (0: all), after `few_shot` examples (-1: as many as the task says), `batch` at a time,
    in the model's chat template if `template`, with the `chat_template_kwargs` of the load's
    options.

    Result: `resolved`, `harness` (its version), `seconds` of answering, and `tasks`, for each one
    `task`, `version`, `few_shot`, `documents`, `documents_sha256` (over all that was asked and
    wanted, in order) and `figures`: for each `metric` and `filter` the `value`, its standard
    `error` (None where it is no mean over documents) and `right`, a 0 or 1 for each document in
    order, empty where it is no such figure. Raises Refused, of kind `BAD_TASK` where a task cannot
    be had.
    """
    report(0, 0, "importing libraries")
    if importlib.util.find_spec("lm_eval") is None:
        raise Refused(
            "missing_library",
            "lm-evaluation-harness is not installed for this interpreter",
            "install it there: pip install 'quantchat[eval]', or lm_eval",
        )
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    settle(options)
    tasks = _tasks(options["tasks"], report)
    loaded = _load(options, report)
    if options["template"] and not loaded.chat_template:
        raise Refused(
            "unsupported", "the model has no chat template", "evaluate without --chat-template"
        )
    began = time.monotonic()
    results = _evaluate(loaded, tasks, options, report)
    return {
        "resolved": dataclasses.asdict(loaded.resolved(DECODE)),
        "harness": metadata.version("lm_eval"),
        "seconds": round(time.monotonic() - began, 2),
        "tasks": [_told(name, results) for name in sorted(results["samples"])],
    }


# ---------------------------------------------------------------- tasks


def _tasks(named: list[str], report: Report) -> Any:
    """The tasks, their documents among them, as the harness has them."""
    from lm_eval.tasks import TaskManager

    report(0, 0, "reading the tasks")
    files = [name for name in named if Path(name).is_absolute()]
    manager = TaskManager(include_defaults=len(files) < len(named))  # its index takes seconds
    unknown = [name for name in named if name not in files and not _known(manager, name)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=3)
        raise Refused(
            BAD_TASK,
            f"the harness has no task {unknown[0]}",
            f"did you mean {', '.join(near)}?" if near else "name one of `lm-eval ls tasks`",
        )
    specs = [_of_file(Path(name)) if name in files else name for name in named]
    try:
        return manager.load(specs)
    except (OSError, ConnectionError) as error:
        raise Refused(
            BAD_TASK,
            f"cannot get the documents of a task: {first_line(error)}",
            "check the network and the paths in the task; own documents need no hub",
        ) from error
    except Exception as error:  # whatever a task's own code or the harness's checks raise
        raise Refused(
            BAD_TASK, f"cannot make a task: {first_line(error)}", "mend the task's YAML file"
        ) from error


def _known(manager: Any, name: str) -> bool:
    return name in manager.all_tasks or any(sign in name for sign in "*?[")


def _of_file(path: Path) -> dict[str, Any]:
    """The task of a YAML file; its data files are looked for beside it. `!function` runs code."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=True)
    except (OSError, ValueError, ImportError, yaml.YAMLError) as error:
        raise Refused(
            BAD_TASK, f"cannot read {path.name}: {first_line(error)}", "mend the task's YAML file"
        ) from error
    if not isinstance(config.get("task"), str) or "dataset_path" not in config:
        raise Refused(
            BAD_TASK,
            f"{path.name} is no task of the harness: it needs `task` and `dataset_path`",
            "see https://github.com/EleutherAI/lm-evaluation-harness, docs/task_guide.md",
        )
    kwargs = config.get("dataset_kwargs") or {}
    if "data_files" in kwargs:
        config["dataset_kwargs"] = {**kwargs, "data_files": _beside(path, kwargs["data_files"])}
    return config


def _beside(path: Path, files: Any) -> Any:
    """`files` of the task in `path`: relative ones are relative to its folder."""
    if isinstance(files, dict):
        return {split: _beside(path, one) for split, one in files.items()}
    if isinstance(files, list):
        return [_beside(path, one) for one in files]
    return files if "://" in str(files) else str(path.parent / str(files))


# ---------------------------------------------------------------- answering


def _load(options: dict[str, Any], report: Report) -> Loaded:
    command = from_json(Load, options["load"])
    try:
        return loaders.load(command, lambda stage: report(0, 0, stage))
    except Exception as error:  # what failed was loading, and that is to be told
        failure = describe(error, loading=command.model)
        raise Refused(failure.kind, failure.reason, failure.hint) from error


def _evaluate(
    loaded: Loaded, tasks: Any, options: dict[str, Any], report: Report
) -> dict[str, Any]:
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from transformers import set_seed

    report(0, 0, "preparing the questions")
    for task in tasks["tasks"].values():
        _few_shot(task, options["few_shot"])
    lm = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=options["batch"],
        trust_remote_code=False,
        chat_template_args=dict(loaded.command.options.get("chat_template_kwargs", {})),
    )
    set_seed(SEED)
    with _counted(lm, report):
        results: dict[str, Any] = evaluator.evaluate(
            lm,
            tasks,
            limit=options["limit"] or None,
            bootstrap_iters=0,
            apply_chat_template=options["template"],
            fewshot_as_multiturn=options["template"],
        )
    return results


def _few_shot(task: Any, wanted: int) -> None:
    """Settle how many examples are shown; a task that says 0 means it (as in the harness)."""
    told = task.get_config("num_fewshot")
    if wanted >= 0 and told != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif told is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


class _Counter:
    """Stands where the harness would keep a cache of answers: it is told of each one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.done = self.total = 0

    def add_partial(self, attr: str, request: Any, answer: Any) -> None:
        """Hear of one answer."""
        del attr, request, answer
        self.done += 1
        self._report(min(self.done, self.total), self.total, "answering")


@contextlib.contextmanager
def _counted(lm: Any, report: Report) -> Iterator[None]:
    """Report answers as they come; what is to be asked is known only when it is asked."""
    counter = _Counter(report)
    lm.set_cache_hook(counter)

    def counting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(requests: list[Any], *more: Any, **named: Any) -> Any:
            counter.total += len(requests)
            return ask(requests, *more, **named)

        return asked

    for name in _ASKING:
        setattr(lm, name, counting(getattr(lm, name)))
    yield


# ---------------------------------------------------------------- what came out


def _told(task: str, results: dict[str, Any]) -> dict[str, Any]:
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    asked = [sample for sample in samples if sample["filter"] == filters[0]]
    digest = hashlib.sha256()
    for sample in asked:
        for part in ("doc_hash", "prompt_hash", "target_hash"):
            digest.update(sample[part].encode())
    return {
        "task": task,
        "version": str(results["versions"].get(task)),
        "few_shot": int(results["configs"][task].get("num_fewshot") or 0),
        "documents": len(asked),
        "documents_sha256": digest.hexdigest(),
        "figures": list(_figures(samples, results["results"][task])),
    }


def _figures(samples: list[dict[str, Any]], totals: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in totals.items():
        metric, _, chosen = key.partition(",")
        if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        each = [sample.get(metric) for sample in samples if sample["filter"] == chosen]
        of_documents = [float(one) for one in each if isinstance(one, int | float)]
        mean = bool(each) and len(of_documents) == len(each) and _is_mean(of_documents, value)
        counted = mean and set(of_documents) <= {0.0, 1.0}
        yield {
            "metric": metric,
            "filter": chosen,
            "value": float(value),
            "error": _error(of_documents) if mean else None,
            "right": "".join(str(int(one)) for one in of_documents) if counted else "",
        }


def _is_mean(values: list[float], told: float) -> bool:
    return abs(statistics.fmean(values) - told) < 1e-9


def _error(values: list[float]) -> float | None:
    """Standard error of the mean of `values`; None of a single one."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

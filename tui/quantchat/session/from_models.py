"""Build a comparison from the names of models, so that users can start without a profile.

Each word of the command line names a folder, an id on the hub, a GGUF file, or the address of a
server. A single model in full precision becomes two variants, GPTQ 4-bit and NF4; `methods` chooses
other variants. A checkpoint that is already quantized is one variant.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from quantchat import paths
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.cache import CheckpointCache, read_built
from quantchat.checkpoints.demo_shape import demo_files
from quantchat.checkpoints.headers import read
from quantchat.checkpoints.sources import existing_model
from quantchat.common import gguf
from quantchat.common.group_size import fitting_group
from quantchat.common.model_folder import CONFIG
from quantchat.common.server_address import is_loopback
from quantchat.engines import registry
from quantchat.engines.engine import Method
from quantchat.engines.memory import estimate
from quantchat.engines.table import folder_or_hub_id, inner_tables, is_path
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles
from quantchat.host.environments import Environments
from quantchat.profile import library
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Profile
from quantchat.profile.nearest import did_you_mean
from quantchat.session.not_found import not_found
from quantchat.text import one_line

_LABEL = 60
"""Maximum length of a label in characters."""
_SERVER_ANSWERS_S = 5.0
"""Longest wait, in s, for a server's list of models."""
_LIST_BYTES = 4 * 2**20
"""Most bytes that are read from a server's list of models."""
_GGUF_OF_HUB = re.compile(r"([\w.-]+/[\w.-]+):([\w.-]+)", re.ASCII)
"""`org/name:Q4_K_M`: a GGUF file of the hub."""
_LAYER = re.compile(r"\.\d+\..*\.weight$")
"""Name of a module's weight inside a numbered layer."""


@dataclass(frozen=True)
class _NamedModel:
    """The model or server that one word names."""

    name: str
    """Last part of the model's name, for labels."""
    keys: dict[str, Any]
    """Keys of the variant in the profile; for a model in full precision, only the keys that do not
    depend on the method."""
    method: str | None = None
    """Label of the variant, such as its quantization method, if the word names exactly one variant;
    None for a full-precision model, to which methods are applied."""
    quantize: dict[str, object] = field(default_factory=dict)
    """The TOML table `[variants.quantize]` for a checkpoint built on this machine."""


def profile_of(
    words: Sequence[str],
    *,
    methods: Sequence[str] = (),
    gptq: str | None = None,
    others: Sequence[str] = (),
) -> Profile:
    """Return a profile that compares the models and servers that `words` name.

    `methods` are names of `registry.methods()`, applied to each model in full precision. Without
    methods, a single model is compared as GPTQ 4-bit and NF4, and several models as they are.
    `gptq` names a finished GPTQ checkpoint, so that none is built. `others` are further valid
    words, such as commands, which an error message may suggest for a typo. Raises UserError.
    """
    known = registry.methods()
    for method in methods:
        if method not in known:
            raise UserError(
                f'"{one_line(method)}" is not a quantization method that quantchat knows',
                where="--with",
                hint=did_you_mean(method, known)
                or f"use one of {', '.join(known)}; to compare a finished checkpoint, give it as a"
                " further MODEL",
            )
    first_of_hub = next((word for word in words if not _is_address(word)), "")
    sides = [_named_model(word, first_of_hub, others) for word in words]
    if not methods:
        methods = (
            registry.DEFAULT_METHODS
            if len(sides) == 1 and sides[0].method is None
            else ("as it is",)
        )
    variants: list[dict[str, Any]] = []
    for side in sides:
        variants += _variants(side, methods, gptq, many=len(sides) > 1)
    if len(variants) < 2:
        raise UserError(
            "a comparison needs two variants, and there is only one",
            where=one_line(words[0]),
            hint="name a second model or server, or several methods: --with nf4,bf16",
        )
    try:
        return Profile.model_validate(
            {
                "name": _name(words),
                "variants": _with_distinct_labels(variants),
                "run": {"order": "in-turn"},
            }
        )
    except ValidationError as error:
        first = next(iter(mistakes(error)))
        raise UserError(
            one_line(first.what), where=one_line(" ".join(words)), hint=one_line(first.hint)
        ) from None


@dataclass(frozen=True)
class CheckpointToBuild:
    """A GPTQ checkpoint that must be built before the comparison, and the cost of building it."""

    label: str
    model: str
    reads: int
    """Bytes of the model's weights."""
    writes: int
    """Estimated bytes of the finished checkpoint."""
    seconds: float | None
    """Estimated duration, from that of a GPTQ checkpoint that was built on this machine; None if
    there is none."""


def checkpoints_to_build(profile: Profile) -> list[CheckpointToBuild]:
    """Return the GPTQ checkpoints that must be built before `profile` can run. Raises UserError."""
    builder = CheckpointBuilder()
    found = []
    for variant in profile.variants:
        if variant.calibration_table and builder.find(variant) is None:
            files = files_of(variant.model)
            size = estimate(variant, files, cuda=False, tokens=1).weights
            found.append(
                CheckpointToBuild(variant.label, variant.model, files.bytes, size, _seconds(size))
            )
    return found


def _seconds(size: int) -> float | None:
    """Estimate the seconds to build a GPTQ checkpoint of `size` bytes; None if unknown.

    The estimate is the duration of the most recently used GPTQ checkpoint in the cache, including
    the generation of its calibration chats, scaled by the sizes of the two checkpoints.
    """
    cache = CheckpointCache(paths.cache_dir() / "checkpoints")
    for entry in cache.entries():
        built = read_built(cache.folder / entry.name)
        if built and "damp_percent" in built.inputs and entry.bytes:
            needs = (read_built(cache.folder / str(name)) for name in built.inputs.get("needs", ()))
            calibration = sum(need.seconds for need in needs if need and "prompts" in need.inputs)
            return (built.seconds + calibration) * size / entry.bytes
    return None


def _name(words: Sequence[str]) -> str:
    return one_line(" against ".join(word.rstrip("/").rpartition("/")[2] for word in words))[:80]


def _variants(
    side: _NamedModel, methods: Sequence[str], gptq: str | None, *, many: bool
) -> list[dict[str, Any]]:
    if side.method is not None:
        return [{**side.keys, "label": side.name if many else side.method}]
    found = []
    for name in methods:
        engine, method = registry.methods().get(name, (registry.baseline(), Method("", "")))
        variant: dict[str, Any] = {**side.keys, **method.keys, "engine": engine.name}
        if method.calibrated:
            if finished := gptq or _published_checkpoint(side.keys["model"], engine.name):
                variant["model"] = finished
            else:
                fields = inner_tables(engine.variant_table)["quantize"].model_fields
                variant["quantize"] = {k: v for k, v in side.quantize.items() if k in fields}
                if engine.runs_gguf:
                    variant |= computing_gguf()
        variant["label"] = f"{side.name} {method.label}".strip() if many else method.label
        found.append(variant)
    return found


def _published_checkpoint(model: str, engine: str) -> str | None:
    """Return a finished checkpoint of `model` for `engine` from the profile library, or None.

    Such a checkpoint belongs to a variant of `engine` that quantchat need not quantize itself, in a
    profile in which a variant of another engine loads `model`.
    """
    for entry in library.entries():
        variants = entry.profile.variants if entry.profile else []
        if any(v.model == model and v.engine != engine for v in variants):
            for variant in variants:
                if variant.engine == engine and variant.calibration_table is None:
                    return variant.model
    return None


def _with_distinct_labels(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number duplicate labels and shorten long ones, in place."""
    seen: set[str] = set()
    for variant in variants:
        label = one_line(variant["label"])[:_LABEL]
        number = 2
        while label in seen:
            label = f"{one_line(variant['label'])[: _LABEL - 4]} ({number})"
            number += 1
        seen.add(label)
        variant["label"] = label
    return variants


def _named_model(word: str, model: str, others: Sequence[str]) -> _NamedModel:
    if _is_address(word):
        return _server(word, model)
    if word.endswith(gguf.SUFFIX) or _path_is(word, _holds_gguf_alone):
        return _gguf(word)
    if (found := _GGUF_OF_HUB.fullmatch(word)) and not _path_is(word, Path.exists):
        keys = {**computing_gguf(), "model": found[1], "gguf_file": found[2]}
        if "engine" not in keys:
            (library,) = registry.computing_gguf().libraries
            raise UserError(
                f"a GGUF file of the hub needs the package {library.package}, which is missing",
                where=one_line(word),
                hint=library.command,
            )
        return _NamedModel(found[1].rpartition("/")[2], keys, found[2])
    return _model(word, others)


# ------------------------------------------------------------------ folders and the hub


def _model(word: str, others: Sequence[str]) -> _NamedModel:
    named = word
    if _path_is(word, Path.is_dir):
        named = str(Path(word).expanduser().absolute())
    elif word != DEMO_MODEL and (is_path(word) or "/" not in word):
        raise not_found(word, others)
    try:
        files = files_of(named)
    except (ValueError, UserError) as error:
        if named != word:
            raise UserError(one_line(str(error))) from None
        raise not_found(word, others, error) from None
    name = Path(named.partition("@")[0]).name
    method = str((files.quantization or {}).get("quant_method") or "quantized")
    if files.quantization is None:
        return _NamedModel(name, {"model": named}, quantize={"group_size": group_size(files)})
    return _NamedModel(name, {"model": named, "engine": registry.engine_for(method).name}, method)


def files_of(model: str) -> ModelFiles:
    """Return the config and tensor headers of `model`, downloaded from the hub if not here.

    Raises UserError, or ValueError if `model` is neither a folder nor a hub's id.
    """
    if model == DEMO_MODEL:
        return demo_files()
    return read(existing_model(folder_or_hub_id(model)), fetch=True)


def group_size(files: ModelFiles) -> int:
    """Return the largest usual group size that divides each layer's width, or -1 (a whole row)."""
    widths = {
        tensor.shape[1]
        for name, tensor in files.tensors.items()
        if len(tensor.shape) == 2 and _LAYER.search(name)
    }
    return fitting_group(widths)


def _gguf(word: str) -> _NamedModel:
    """Return the model for a GGUF file, or for a folder that holds one GGUF model."""
    path = Path(word).expanduser().absolute()
    if path.is_dir():
        try:
            path /= gguf.choose_file([file.name for file in path.glob(gguf.ANY)], gguf.ANY)
        except gguf.BadGguf as error:
            raise UserError(str(error), where=one_line(word), hint=error.hint) from None
    elif not _path_is(word, Path.is_file):
        raise not_found(word)
    keys = {"engine": registry.engine_with("gguf_file").name, **computing_gguf()}
    keys |= {"model": str(path.parent), "gguf_file": path.name}
    return _NamedModel(path.stem, keys, "GGUF")


def computing_gguf() -> dict[str, str]:
    """Return the keys of a variant that computes with the quantized weights of a GGUF file.

    They name the engine, and its environment if the library is installed only there. Empty if the
    library is not installed at all.
    """
    engine = registry.computing_gguf()
    if engine.is_installed():
        return {"engine": engine.name}
    try:
        return {"engine": engine.name, "env": Environments().find(engine.name).name}
    except UserError:
        return {}


def _holds_gguf_alone(folder: Path) -> bool:
    """Return whether `folder` has GGUF files and no other model."""
    return folder.is_dir() and any(folder.glob(gguf.ANY)) and not (folder / CONFIG).exists()


def _path_is(word: str, test: Callable[[Path], bool]) -> bool:
    try:
        return test(Path(word).expanduser())
    except (OSError, RuntimeError, ValueError):  # `~` of an unknown user; a NUL; a path too long
        return False


# ------------------------------------------------------------------ servers


def _is_address(word: str) -> bool:
    return word.startswith(("http://", "https://"))


def _server(word: str, model: str) -> _NamedModel:
    """Return the model for the server at address `word`: its model `model`, or else its only model.

    Raises UserError if the server has several models and none is `model`.
    """
    base = word.rstrip("/")
    served = served_models(base)
    chosen = model if model in served else served[0]
    if chosen != model and len(served) > 1:
        raise UserError(
            f"the server has {len(served)} models: {one_line(', '.join(served[:8]))}",
            where=one_line(word),
            hint="give the model's name after the address, or write a profile",
        )
    host = urlsplit(base).netloc
    keys = {"engine": registry.engine_with("base_url").name, "model": chosen, "base_url": base}
    return _NamedModel(f"{chosen.rpartition('/')[2]} at {host}", keys, f"{chosen} at {host}")


def served_models(base: str) -> list[str]:
    """Return the names of the models that the server at `base` lists. Raises UserError."""
    where = one_line(base)
    host = urlsplit(base).hostname or ""
    proxies = urllib.request.ProxyHandler({} if is_loopback(host) else None)
    try:
        with urllib.request.build_opener(proxies).open(
            f"{base}/models", timeout=_SERVER_ANSWERS_S
        ) as answer:
            body = json.loads(answer.read(_LIST_BYTES))
    except urllib.error.HTTPError as error:
        raise UserError(
            f"the server answers {error.code} when asked for its list of models",
            where=where,
            hint="if the server needs a key, write a profile with key_env",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"does not list its models: {one_line(str(reason))[:200]}",
            where=where,
            hint="start the server, and give its address up to /v1",
        ) from None
    listed = body.get("data") if isinstance(body, dict) else None
    names = [
        one["id"]
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"]
    ]
    if not names:
        raise UserError("the server lists no model", where=where, hint="load a model in the server")
    return names

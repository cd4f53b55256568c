"""`quantchat quantize`: make a quantized checkpoint of a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from quantchat.engines.registry import DEFAULT_METHODS, baseline, engine_of, methods
from quantchat.engines.table import inner_tables

_FAILED = 1

_SAVED_METHODS = [name for name, (_, method) in methods().items() if method.saved is not None]
"""The methods whose checkpoints quantchat can build."""


def _formats() -> dict[str, str]:
    """Return the formats that `[variants.quantize]` offers. Key: format; value: its method."""
    found: dict[str, str] = {}
    for name in _SAVED_METHODS:
        table = inner_tables(methods()[name][0].variant_table).get("quantize")
        if table and "format" in table.model_fields:
            form = table.model_fields["format"].annotation
            found |= dict.fromkeys(get_args(form), name)
    return found


_FORMATS = _formats()

_METHOD_ONLY = {
    "bits": "--bits",
    "group_size": "--group-size",
    "desc_act": "--act-order",
    "act_group_aware": "--no-act-group-aware",
    "sym": "--asymmetric",
    "damp_percent": "--damp",
    "true_sequential": "--no-true-sequential",
    "iters": "--iters",
    "format": "--format",
}
"""Settings that only some methods have. Key: the setting's name in a profile; value: its option."""

_CALIBRATION = {
    "calibration": "--calibration, --calibration-dataset",
    "samples": "--samples",
    "sample_tokens": "--sample-tokens",
    "seed": "--seed",
}

_TEMPLATE = "--chat-template-kwargs"

_COMMON = {
    "adapter": "--adapter",
    "chat_template_kwargs": _TEMPLATE,
    "device": "--device",
    "model": "MODEL",
    "tokenizer": "--tokenizer",
}


def _method_help() -> str:
    """Return a sentence about which library each method uses and which methods need calibration."""
    by_library: dict[str, list[str]] = {}
    calibrated = []
    for name in _SAVED_METHODS:
        engine, method = methods()[name]
        library = (*method.made_with, *engine.libraries)[0]
        by_library.setdefault(library.package, []).append(name)
        calibrated += [name] if method.calibrated else []
    used = "; ".join(f"{library} for {', '.join(names)}" for library, names in by_library.items())
    return f"Libraries: {used}. Calibrated: {', '.join(calibrated)}."


@click.command()
@click.argument("model")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Copy the checkpoint to this folder. Default: leave it in the cache.",
)
@click.option(
    "--method",
    type=click.Choice(_SAVED_METHODS),
    default=DEFAULT_METHODS[0],
    show_default=True,
    help=_method_help(),
)
@click.option(
    "--adapter",
    metavar="PATH_OR_ID",
    help="Merge this LoRA adapter into MODEL first, in full precision.",
)
@click.option(
    "--tokenizer",
    metavar="PATH_OR_ID",
    help="Use the tokenizer and chat template of this other model.",
)
@click.option(
    "--bits",
    type=click.Choice(["2", "3", "4", "8"]),
    help="GPTQ, AutoRound: bits per weight. Default: 4.",
)
@click.option(
    "--group-size",
    type=int,
    help="GPTQ, AWQ, AutoRound: weights that share a scale. Default: the first of 128, 64, 32 that "
    "fits.",
)
@click.option(
    "--act-order",
    "desc_act",
    flag_value=True,
    default=None,
    help="GPTQ: quantize columns in order of falling activation (desc_act).",
)
@click.option(
    "--no-act-group-aware",
    "act_group_aware",
    flag_value=False,
    default=None,
    help="GPTQ: do not reorder columns inside the groups.",
)
@click.option(
    "--asymmetric",
    "sym",
    flag_value=False,
    default=None,
    help="GPTQ, AutoRound: use a zero point for each group, as AWQ always does.",
)
@click.option(
    "--damp",
    "damp_percent",
    type=float,
    metavar="SHARE",
    help="GPTQ: damping of the Hessian's diagonal, as a share of its mean. Default: 0.05.",
)
@click.option(
    "--no-true-sequential",
    "true_sequential",
    flag_value=False,
    default=None,
    help="GPTQ: quantize all modules of a layer from the same activations.",
)
@click.option(
    "--iters",
    type=int,
    help="AutoRound: steps of optimization for each block of the model. Default: 200; for a GGUF "
    "file 0.",
)
@click.option(
    "--format",
    type=click.Choice(list(_FORMATS)),
    help="AutoRound: format of the checkpoint. Default: auto_gptq for autoround, q4_k_m for "
    "autoround-gguf.",
)
@click.option("--no-double-quant", is_flag=True, help="nf4, fp4: do not quantize the scales.")
@click.option(
    "--calibration",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Calibration text, or JSONL of texts or chats. Default: chats that the model generates.",
)
@click.option(
    "--calibration-dataset",
    metavar="NAME[:SPLIT[:COLUMN]]",
    help="Calibration data set on the Hugging Face hub.",
)
@click.option(
    "--samples",
    type=int,
    help="Number of calibration samples. Default: 32 on a CPU; on a GPU enough for four tokens per "
    "input of the widest layer, at least 32.",
)
@click.option(
    "--sample-tokens",
    type=int,
    help="Longest calibration sample in tokens. Default: 512 on a GPU, 160 on a CPU.",
)
@click.option(
    _TEMPLATE,
    metavar="JSON",
    help="Variables for the model's chat template, e.g. '{\"enable_thinking\": false}'.",
)
@click.option("--seed", type=int, help="Random seed for choosing samples. Default: 0.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "bfloat16", "float16", "float32"]),
    default="auto",
    help="Number format of the parts that are not quantized. Default: the checkpoint's.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--trust-remote-code", is_flag=True, help="Allow the model to run its Python code.")
@click.option("--no-perplexity", is_flag=True, help="Do not measure perplexity before and after.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def quantize(
    model: str,
    output: Path | None,
    method: str,
    adapter: str | None,
    tokenizer: str | None,
    no_double_quant: bool,
    calibration: Path | None,
    calibration_dataset: str | None,
    chat_template_kwargs: str | None,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    no_perplexity: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Make a quantized checkpoint of MODEL.

    MODEL is a folder, an id on the Hugging Face hub, or demo:smollm2-135m-instruct. Downloads and
    checkpoints are cached, so the same checkpoint is not made twice. After Ctrl+C, start the same
    command again to continue where it stopped.
    """
    if calibration is not None and calibration_dataset is not None:
        raise click.UsageError(
            "--calibration and --calibration-dataset both name a text: give only one of them"
        )
    settings["calibration"] = f"hub:{calibration_dataset}" if calibration_dataset else None
    if calibration is not None:
        settings["calibration"] = str(calibration.expanduser().absolute())
    method_settings = {name: value for name, value in settings.items() if value is not None}
    if "bits" in method_settings:
        method_settings["bits"] = int(method_settings["bits"])
    engine, chosen = methods()[method]
    if no_double_quant and "double_quant" not in engine.variant_table.model_fields:
        raise click.UsageError("--no-double-quant needs --method nf4 or --method fp4")
    if wrong := [
        _METHOD_ONLY[name] for name in method_settings if not _takes(engine, chosen, name)
    ]:
        raise click.UsageError(f"{', '.join(wrong)}: cannot be used with --method {method}")
    form = method_settings.get("format")
    if form is not None and _FORMATS[form] != method:
        raise click.UsageError(f"--format {form} needs --method {_FORMATS[form]}")
    common = {
        "model": _as_in_profile(model),
        "dtype": dtype,
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    if chat_template_kwargs is not None:
        common["chat_template_kwargs"] = _json_object(chat_template_kwargs)
    if adapter is not None:
        common |= {"adapter": _absolute_if_path(_as_in_profile(adapter)), "merge_adapter": True}
    if tokenizer is not None:
        common["tokenizer"] = _absolute_if_path(_as_in_profile(tokenizer))
    if _takes(engine, chosen, "group_size") and "group_size" not in method_settings:
        method_settings["group_size"] = _group_size(_as_in_profile(model))
    variants = _variants(method, common, method_settings, double_quant=not no_double_quant)
    return _make(variants, output, held_out=not no_perplexity, as_json=as_json)


def _takes(engine: Any, method: Any, name: str) -> bool:
    """Return whether `method` of `engine` has the setting `name`.

    All methods have the settings that are not in `_METHOD_ONLY`.
    """
    if name not in _METHOD_ONLY:
        return True
    return method.calibrated and name in inner_tables(engine.variant_table)["quantize"].model_fields


def _make(variants: Sequence[Any], output: Path | None, *, held_out: bool, as_json: bool) -> int:
    """Make the checkpoint of the last of `variants` and print the result; return the exit status.

    `variants` are those of `_variants`. With `held_out`, measure the perplexity on text that was
    not used for calibration.
    """
    from quantchat.checkpoints import export
    from quantchat.console.stages import stage_display
    from quantchat.features.quantize.outcome import judge, make
    from quantchat.host.job_runner import JobFailed
    from quantchat.text import one_line

    base, calibrated = variants[:2]
    if output is not None:
        export.check(output)
    where: Path | None = None
    try:
        with stage_display() as display:
            pair = asyncio.run(make(base, variants[-1], display))
            if output is not None:  # export before anything else can fail
                export.export(pair.folder, output)
            where = output or pair.folder
            outcome = asyncio.run(judge(pair, calibrated.quantize if held_out else None, display))
    except JobFailed as error:
        hint = f" ({error.failure.hint})" if error.failure.hint else ""
        click.echo(f"quantchat: {one_line(f'{error}{hint}')}", err=True)
        return _FAILED
    except KeyboardInterrupt:
        done = f"the checkpoint is in {where}" if where else "the same command continues from here"
        click.echo(f"quantchat: stopped; {one_line(done)}", err=True)
        raise
    if as_json:
        click.echo(json.dumps({**outcome.as_json(), "folder": str(where)}, indent=2))
        return 0
    from quantchat.console.console import show
    from quantchat.features.quantize.tables import blocks

    show(blocks(outcome))
    click.echo(f"the checkpoint is in {one_line(str(where))}; to use it in a profile:")
    click.echo(_profile_lines(variants[-1], where))
    return 0


def _profile_lines(variant: Any, where: Path) -> str:
    """Return the lines of a profile that load the checkpoint in the folder `where`."""
    from quantchat.profile.toml_out import variant_toml

    finished = {"quantize": None, "save_quantized": False, "adapter": None, "merge_adapter": False}
    own = {key: value for key, value in finished.items() if hasattr(variant, key)}
    label = engine_of(variant).label(variant) if variant.calibration_table else variant.label
    return variant_toml(
        variant.model_copy(update={**own, "label": label, "model": str(where.absolute())})
    )


def _group_size(model: str) -> int:
    """Return the default group size for `model`.

    If the model's files cannot be read yet, return the usual 128; whether it divides the layers'
    widths is checked when the model is loaded.
    """
    from quantchat.common.group_size import GROUP_SIZES
    from quantchat.errors import UserError
    from quantchat.session import from_models

    try:
        return from_models.group_size(from_models.files_of(model))
    except (UserError, ValueError):
        return GROUP_SIZES[0]


def _json_object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.UsageError(
            f'{_TEMPLATE} needs a JSON object, e.g. {{"enable_thinking": false}}'
        )
    return found


def _as_in_profile(model: str) -> str:
    """Return `model` as it is written in a profile: the bare name of a folder becomes `./name`."""
    from quantchat.files import is_folder

    bare = not model.startswith((".", "/", "~"))
    return f"./{model}" if bare and is_folder(Path(model)) else model


def _absolute_if_path(model: str) -> str:
    """Return `model` as an absolute path if it is a path, as for a path in a profile."""
    from quantchat.engines.table import is_path

    return str(Path(model).expanduser().absolute()) if is_path(model) else model


def _variants(
    method: str, common: dict[str, object], settings: dict[str, object], *, double_quant: bool
) -> Sequence[Any]:
    """Return the base, a calibrated variant, and last the variant that `method` builds.

    If `method` is the first method with calibration, the second variant is also the last one.
    Otherwise the second variant is not built: its calibration settings only decide which text is
    held out for measuring the perplexity. Raises UserError.
    """
    from pydantic import ValidationError

    from quantchat.errors import UserError
    from quantchat.profile.mistakes import key_text, mistakes
    from quantchat.profile.model import Profile
    from quantchat.session.from_models import computing_gguf

    calibrating = next(name for name in _SAVED_METHODS if methods()[name][1].calibrated)
    variants: list[dict[str, object]] = [{"label": "base", "engine": baseline().name, **common}]
    for name in dict.fromkeys((calibrating, method)):
        engine, chosen = methods()[name]
        keys = {**chosen.keys, **(chosen.saved or {})}
        if chosen.calibrated:
            keys["quantize"] = {
                key: settings[key] for key in settings if _takes(engine, chosen, key)
            }
        elif "double_quant" in engine.variant_table.model_fields:
            keys["double_quant"] = double_quant
        if engine.runs_gguf:
            keys |= computing_gguf()
        variants.append({"label": name, "engine": engine.name, **keys, **common})
    try:
        return Profile.model_validate({"name": "quantize", "variants": variants}).variants
    except ValidationError as error:
        first = next(mistakes(error))
        names = {**_METHOD_ONLY, **_CALIBRATION, **_COMMON}
        option = next((names[key] for key in map(str, first.path) if key in names), None)
        raise UserError(first.what, where=option or key_text(first.path), hint=first.hint) from None

"""Choose the reference model: the base that the variants were quantized from, or a named model."""

from __future__ import annotations

from collections.abc import Set

from pydantic import ValidationError

from quantchat.engines.registry import baseline, engine_of
from quantchat.engines.table import is_path
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.profile.model import AnyVariant, Profile
from quantchat.profile.nearest import did_you_mean
from quantchat.text import one_line


def reference_of(profile: Profile, word: str | None) -> AnyVariant:
    """Return the reference model for the variants of `profile`.

    `word` is a variant's label, or a model as a profile names it. Without `word`, the reference is
    the base model of the variants. If the profile has a full-precision variant of this base, that
    variant is returned, else the base in the dtype of its checkpoint. If no variant has a known
    base, the first variant in full precision is returned. Raises UserError if there is no such
    variant, or if `word` names a server.
    """
    if word is not None:
        labels = {variant.label: variant for variant in profile.variants}
        if word in labels and engine_of(labels[word]).is_server:
            raise UserError(
                "a server cannot be the reference: it does not report every token's probability",
                where=one_line(word),
                hint="name the model that it runs: --reference MODEL",
            )
        return labels[word] if word in labels else _model(profile, word)
    full_precision = [variant for variant in profile.variants if _in_full_precision(variant)]
    for variant in profile.variants:
        if not engine_of(variant).starts_from_base(variant):
            continue
        own = [one for one in full_precision if one.model == variant.model]
        return own[0] if own else _base(variant.model, variant, profile)
    if full_precision:
        return full_precision[0]
    raise UserError(
        "no variant says which model it was made from",
        where=one_line(profile.name),
        hint="name the reference: --reference VARIANT or MODEL",
    )


def _in_full_precision(variant: AnyVariant) -> bool:
    """Return whether weights and KV cache are in full precision; a GGUF file never counts."""
    engine = engine_of(variant)
    return engine.is_baseline and not engine.gguf_file(variant) and not variant.kv_cache


def _base(model: str, like: AnyVariant, profile: Profile) -> AnyVariant:
    """Return a baseline variant of `model`, with the device and chat template variables of `like`.

    The new variant may run code from the model's files only if `like` may and has the same model.
    """
    engine = baseline()
    table: type[AnyVariant] = engine.variant_table
    return table(
        label=_label(model, {variant.label for variant in profile.variants}),
        engine=engine.name,
        model=model,
        device=like.device,
        chat_template_kwargs=like.chat_template_kwargs,
        trust_remote_code=like.trust_remote_code and like.model == model,
    )


def _label(model: str, used_labels: Set[str]) -> str:
    """Return the last part of the model's name, with `, reference` added if the label is taken."""
    end = model.removeprefix("demo:").rstrip("/").rsplit("/", 1)[-1][:48] or "base"
    return f"{end}, reference" if end in used_labels else end


def _model(profile: Profile, word: str) -> AnyVariant:
    """Return a variant of the model that `word` names; `word` is no label. Raises UserError."""
    if not (is_path(word) or "/" in word or word == DEMO_MODEL):
        labels = [variant.label for variant in profile.variants]
        raise UserError(
            "no variant has this label",
            where=one_line(word),
            hint=did_you_mean(word, labels, limit=3)
            or f"one of: {one_line(', '.join(labels))}; or a model: a folder, or org/name",
        )
    try:
        return _base(word, profile.variants[0], profile)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UserError(one_line(problem), where=one_line(word)) from None

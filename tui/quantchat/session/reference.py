"""The model that variants are compared with: the one they were quantized from, or a named one."""

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
    """The model that the variants are held against: the one that `word` names, or their base.

    `word` is a variant's label, or a model as a profile names it. Without one it is the model that
    the variants are quantized from, as the profile's own variant if it has one of it, in the dtype
    of its checkpoint otherwise. Raises UserError where that cannot be told, or for a server.
    """
    for variant in profile.variants:
        if reason := engine_of(variant).no_reference:
            raise UserError(
                reason,
                where=one_line(variant.label),
                hint=f'take a profile without engine = "{variant.engine}"',
            )
    if word is not None:
        labels = {variant.label: variant for variant in profile.variants}
        return labels[word] if word in labels else _model(profile, word)
    plain = [variant for variant in profile.variants if _in_full_precision(variant)]
    for variant in profile.variants:
        if not engine_of(variant).starts_from_base(variant):
            continue
        own = [one for one in plain if one.model == variant.model]
        return own[0] if own else _base(variant.model, variant, profile)
    if plain:
        return plain[0]
    raise UserError(
        "no variant tells which model it was made from",
        where=one_line(profile.name),
        hint="name the reference: --reference VARIANT or MODEL",
    )


def _in_full_precision(variant: AnyVariant) -> bool:
    """Whether the variant loads a checkpoint as it is, and not a GGUF file."""
    engine = engine_of(variant)
    return engine.is_baseline and not engine.gguf_file(variant)


def _base(model: str, like: AnyVariant, profile: Profile) -> AnyVariant:
    """`model` as it comes, on the device of `like`, and asked like it."""
    engine = baseline()
    table: type[AnyVariant] = engine.table
    return table(
        label=_label(model, {variant.label for variant in profile.variants}),
        engine=engine.name,
        model=model,
        device=like.device,
        chat_template_kwargs=like.chat_template_kwargs,
        trust_remote_code=like.trust_remote_code and like.model == model,
    )


def _label(model: str, taken: Set[str]) -> str:
    """The end of the model's name, unless a variant is called so."""
    end = model.removeprefix("demo:").rstrip("/").rsplit("/", 1)[-1][:48] or "base"
    return f"{end}, reference" if end in taken else end


def _model(profile: Profile, word: str) -> AnyVariant:
    """The model `word`, which is no label. Raises UserError where it is no model either."""
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

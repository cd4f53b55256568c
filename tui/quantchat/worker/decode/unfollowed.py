"""What a checkpoint's generation_config.json asks for and no decode loop here does.

Both loops choose tokens by the request's sampling settings alone, so that two variants differ in
their weights and not in such a file. What would change the tokens beyond that is reported.
"""

from __future__ import annotations

from typing import Any

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "encoder_no_repeat_ngram_size": (0,),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "min_p": (0, 0.0),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "penalty_alpha": (0, 0.0),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "top_h": (0, 0.0),
    "typical_p": (1, 1.0),
    "watermarking_config": (),
}
"""Settings of transformers that change which tokens are said, with the values that turn them off;
None and what is empty always do."""


def unfollowed(config: Any) -> list[str]:
    """The names of the settings in `config`, a `GenerationConfig`, that are not followed."""
    wishes = ((name, getattr(config, name, None)) for name in _NEUTRAL)
    return [
        name
        for name, value in wishes
        if value is not None and value not in ([], {}, "") and value not in _NEUTRAL[name]
    ]


def note(config: Any) -> str:
    """What the user must know of `config`; empty where nothing of it is left out."""
    names = unfollowed(config)
    if not names:
        return ""
    return f"generation_config.json sets {', '.join(names)}, which no decode mode here follows"

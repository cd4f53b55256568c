"""Build the messages `LoadModel` and `Generate` for a worker, in chats and measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantchat.checkpoints.provider import PreparedModel
from quantchat.engines.registry import engine_of
from quantchat.host.limits import compute_threads
from quantchat.profile.model import AnyVariant, Generation
from quantchat.wire.messages import Generate, LoadModel, Message, Sampling


def load_request(
    spec: AnyVariant, prepared: PreparedModel, settings: Generation | None = None
) -> LoadModel:
    """Return the request to load `spec`; `prepared` has the model's folder or hub id.

    While a worker opens a server, it sends short trial requests with the sampling of `settings`, to
    see which parameters the server accepts. `Engine.load_options` also registers the server's API
    key, so that logs, messages and snapshots omit it. Raises UserError if the Python environment
    that `spec` names does not exist.
    """
    engine = engine_of(spec)
    return LoadModel(
        engine=spec.engine,
        model=prepared.model,
        revision=prepared.revision,
        options=engine.load_options(spec, _sampling(settings) if settings else None),
        dtype=spec.dtype,
        device=spec.device,
        attention=spec.attention,
        decode=spec.decode_mode,
        trust_remote_code=spec.trust_remote_code,
        loader=engine.loader,
        needs=list(engine.needs(spec)),
        reader=engine.reader,
    )


def chat_request(
    turn: int, messages: list[Message], settings: Generation, *, threads: int, **more: Any
) -> Generate:
    """Return the request to answer `messages`; `more` are further fields of Generate."""
    most, sampling = settings.max_new_tokens, _sampling(settings)
    request = Generate(turn, messages, sampling, max_new_tokens=most, threads=threads)
    return replace(request, **more)


def _sampling(settings: Generation) -> Sampling:
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        seed=settings.seed,
        min_p=settings.min_p,
        presence_penalty=settings.presence_penalty,
        frequency_penalty=settings.frequency_penalty,
        logit_bias=settings.logit_bias,
        stop=settings.stop,
        max_thinking_tokens=settings.max_thinking_tokens,
    )


def single_prompt_request(
    turn: int, prompt: str, settings: Generation, *, threads: int, **more: Any
) -> Generate:
    """Return the request for a single prompt, without turns before it."""
    messages = [Message("system", settings.system)] if settings.system else []
    return chat_request(
        turn, [*messages, Message("user", prompt)], settings, threads=threads, **more
    )


def threads_for(workers: int) -> int:
    """Return the CPU threads for each of `workers` workers, which share the usable CPUs."""
    return max(1, compute_threads() // workers)

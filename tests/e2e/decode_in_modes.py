"""Decode the same prompts in several modes, and report where they diverge from `generate`.

    python decode_in_modes.py '{"engine": …}' TOKENS PROMPTS MODE…

The first argument is a `LoadModel` command; PROMPTS is how many of the prompts below to use.
Prints a JSON list with an object for each mode and prompt. `forced`: mean difference between the
decoder's log probabilities of generate's tokens (teacher forcing) and those of the model's own
modules. `same`: number of leading tokens equal to generate's. If not all tokens are equal, also
`gap`, how much higher the model's own modules score generate's token than the mode's token, and
`ulp`, the spacing of the dtype's numbers there. This is a separate program because the libraries
print, and because a process loads only one variant.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

from quantchat.wire.codec import from_json
from quantchat.wire.messages import Generate, LoadModel, Message, Sampling, ScoreTokens

PROMPTS = (
    "What is the capital of France?",
    "Explain step by step how a bicycle stays upright.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Tell me a story about a lighthouse keeper.",
)


class Listener:
    """Hears the tokens in place of the outbox."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def send(self, event: Any) -> None:
        pass

    def begin(self, turn: int, prompt: object = (), stop: object = ()) -> None:
        pass

    def token(self, token: int, time_ns: int) -> None:
        self.ids.append(token)

    def end(self, turn: int, reason: str, finished_ns: int) -> None:
        pass


def decode(decoder: Any, prompt: str, tokens: int) -> list[int]:
    listener = Listener()
    messages = [Message("user", prompt)]
    request = Generate(0, messages, Sampling(), tokens, ignore_eos=True, fresh=True)
    decoder.answer(request, 0, listener, lambda turn: False)
    return listener.ids


def tensor_of(loaded: Any, prompt: str, said: list[int]) -> Any:
    """The ids of the prompt, in its template, and of `said`, (1, tokens)."""
    import torch

    from quantchat.worker.decode.loop_decoder import encode_prompt

    ids = encode_prompt(loaded, [Message("user", prompt)]) + said
    return torch.tensor([ids]).to(loaded.input_device)


def logits_of(loaded: Any, prompt: str, said: list[int]) -> Any:
    """The modules' own logits at each place of `said`, (tokens, vocabulary), in one pass."""
    import torch

    ids = tensor_of(loaded, prompt, said[:-1])
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, use_cache=False).logits
    return logits[0, -len(said) :].float().cpu()


def logits_after(loaded: Any, prompt: str, said: list[int]) -> Any:
    """The modules' own logits after `said`, (vocabulary,), token by token as a loop comes to them.

    A tie is one in these: a pass over all of it rounds otherwise.
    """
    from quantchat.worker.decode.cpu import unfused_weights
    from quantchat.worker.decode.steps.eager import EagerStep

    step = EagerStep(loaded.model)
    ids = tensor_of(loaded, prompt, said)
    asked = ids.shape[1] - len(said)
    with unfused_weights(loaded.model):
        found = step.run(ids[:, :asked])
        for place in range(asked, ids.shape[1]):
            found = step.run(ids[:, place : place + 1])
    return found[0].float().cpu()


def forced_off(decoder: Any, prompt: str, said: list[int], logits: Any) -> float:
    """Mean distance of what `decoder` says of `said` from `logits`, in nats."""
    request = ScoreTokens(0, [Message("user", prompt)], said)
    told = decoder.score_tokens(request, lambda: False).logprobs
    own = logits.log_softmax(-1)[range(len(said)), said].tolist()
    return math.fsum(abs(one - other) for one, other in zip(told, own, strict=True)) / len(said)


def main(load_json: str, tokens: int, prompts: int, modes: list[str]) -> list[dict[str, Any]]:
    import torch

    from quantchat.worker.decode.decoder import Decoder
    from quantchat.worker.loaders import load

    loaded = load(from_json(LoadModel, json.loads(load_json)), lambda stage: None)
    plain = Decoder(loaded, "generate", lambda stage: None)
    expected = {prompt: decode(plain, prompt, tokens) for prompt in PROMPTS[:prompts]}
    logits = {prompt: logits_of(loaded, prompt, said) for prompt, said in expected.items()}
    found = []
    for mode in modes:
        decoder = Decoder(loaded, mode, lambda stage: None)
        for prompt, right in expected.items():
            said = decode(decoder, prompt, tokens)
            same = next((n for n in range(tokens) if said[n] != right[n]), tokens)
            told = {"mode": mode, "decode": decoder.chosen.name, "prompt": prompt, "same": same}
            told["forced"] = forced_off(decoder, prompt, right, logits[prompt])
            if same < tokens:
                here = logits_after(loaded, prompt, right[:same])
                told["gap"] = float(here[right[same]] - here[said[same]])
                exponent = math.floor(math.log2(abs(float(here.max()))))
                told["ulp"] = torch.finfo(loaded.model.dtype).eps * 2.0**exponent
            found.append(told)
    return found


if __name__ == "__main__":
    said_aloud = os.dup(1)
    os.dup2(2, 1)  # the libraries print on standard output
    result = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    os.write(said_aloud, json.dumps(result).encode())

"""Ask a server for the token ids of a chat and of the answer to it.

The stream of an answer does not contain token ids. vLLM and llama.cpp's server have the path
`/tokenize`, with different parameters, beside OpenAI's `/v1`:
https://docs.vllm.ai (Tokenizer API) and the README of llama.cpp's `tools/server`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantchat.worker.failures import Refused


async def answer_tokens(
    client: Any,
    base_url: str,
    model: str,
    prompt: str | Sequence[Mapping[str, str]],
    answer: str,
    template: Mapping[str, Any],
) -> tuple[list[int], int]:
    """Return the token ids of `prompt` and `answer` together, and the number of ids of `prompt`.

    `prompt` is a text, or the messages of a chat, to which the server applies its chat template
    with the variables `template`. The server tokenizes the text of the answer. The ids differ from
    those that the model has generated if the model split this text into other tokens than the
    tokenizer does. Raises Refused if the server at `base_url` reports no ids.
    """
    import openai

    root, _, path = base_url.rstrip("/").rpartition("/")
    native = _Native(client.with_options(base_url=root if path == "v1" else base_url), model)
    for tokenize in (native.vllm, native.llama_cpp):
        try:
            before, whole = await tokenize(prompt, answer, template)
        except openai.APIStatusError:
            continue  # the server lacks these paths, or refuses the parameters
        except (LookupError, TypeError, ValueError):
            continue  # the server ignores the parameters
        if whole[: len(before)] != before or len(whole) == len(before):
            raise Refused(
                "unsupported",
                "the server's tokens of prompt and answer do not begin with those of the prompt",
                "",
            )
        return whole, len(before)
    raise Refused("unsupported", "the server has no /tokenize for a chat and its answer", "")


class _Native:
    """Requests to paths of a server that are not part of OpenAI's protocol."""

    def __init__(self, client: Any, model: str) -> None:
        self._client = client
        self._model = model

    async def vllm(
        self, prompt: str | Sequence[Mapping[str, str]], answer: str, template: Mapping[str, Any]
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of the prompt, and of prompt and answer, with the paths of vLLM."""
        if isinstance(prompt, str):
            before = await self._ids("/tokenize", prompt=prompt, add_special_tokens=True)
        else:
            variables = {"chat_template_kwargs": dict(template)} if template else {}
            before = await self._ids(
                "/tokenize", messages=list(prompt), add_generation_prompt=True, **variables
            )
        text = (await self._post("/detokenize", tokens=before))["prompt"]
        return before, await self._ids("/tokenize", prompt=text + answer, add_special_tokens=False)

    async def llama_cpp(
        self, prompt: str | Sequence[Mapping[str, str]], answer: str, template: Mapping[str, Any]
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of the prompt, and of prompt and answer, with llama.cpp's paths."""
        if isinstance(prompt, str):
            text = prompt
        else:
            variables = {"chat_template_kwargs": dict(template)} if template else {}
            rendered = await self._post("/apply-template", messages=list(prompt), **variables)
            text = rendered["prompt"]
        special = {"add_special": True, "parse_special": True}
        before = await self._ids("/tokenize", content=text, **special)
        return before, await self._ids("/tokenize", content=text + answer, **special)

    async def _ids(self, path: str, **body: Any) -> list[int]:
        """Return the token ids in the response of `path`. Raises ValueError if there are none."""
        tokens = [int(token) for token in (await self._post(path, **body))["tokens"]]
        if not tokens:
            raise ValueError("no tokens")
        return tokens

    async def _post(self, path: str, **body: Any) -> Any:
        return await self._client.post(path, body={"model": self._model, **body}, cast_to=object)

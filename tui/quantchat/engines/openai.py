"""Declare the engine `openai`: servers with OpenAI's protocol, e.g. vLLM, SGLang, llama.cpp."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from quantchat.engines.engine import Engine
from quantchat.engines.table import Line, Table
from quantchat.engines.variant import EnvironmentName, VariantBase
from quantchat.wire.library import Library
from quantchat.wire.redaction import declare_secret, names_secret

if TYPE_CHECKING:
    from quantchat.wire.messages import Sampling


def _address(value: str) -> str:
    """Return `value` if it is a valid URL with a host. Raises ValueError.

    An example of an invalid URL is `http://[::1`.
    """
    try:
        parts = urlsplit(value.replace("{port}", "1"))
        if not parts.hostname:
            raise ValueError("it names no host")
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    return value


Address = Annotated[
    str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000), AfterValidator(_address)
]
"""The address of a server, without user name and password."""


class Server(Table):
    """A server that quantchat starts for this variant, and ends when the variant ends."""

    command: list[Line] = Field(min_length=1, examples=[["vllm", "serve", "org/name"]])
    """The program and its arguments, started without a shell. `{port}` stands for a free port of
    this machine, here, in `ready` and in the variant's `base_url`."""
    ready: Address | None = Field(None, examples=["http://127.0.0.1:8000/health"])
    """An address that responds once the server is ready; by default `/models` below `base_url`."""
    timeout_s: float = Field(600.0, gt=0, le=86400)
    """Longest time that the server may take to start, in seconds."""
    env: EnvironmentName | None = Field(None, examples=["vllm"])
    """An environment made by `quantchat env create`; its programs come first on PATH."""


class OpenAI(VariantBase):
    """A server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, Ollama."""

    engine: Literal["openai"]
    """What runs the model: a server, here or elsewhere."""
    model: Line
    """The name of the model on the server."""
    base_url: Address = Field(examples=["http://127.0.0.1:8000/v1"])
    """The server's address, up to `/v1` in the path. A query (`?api-version=…`) is sent with each
    request. Do not put a key into the address: see `key_env`."""
    key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100, examples=["VLLM_API_KEY"]
    )
    """Name of the environment variable with the server's API key, if the server needs one."""
    api: Literal["chat", "completion"] = "chat"
    """`chat`: the server applies the chat template. `completion`: it continues the plain text."""
    timeout_s: float = Field(120.0, gt=0, le=3600)
    """Longest time, in seconds, without data from the server, before or during an answer."""
    server: Server | None = None
    """If present, quantchat starts the server itself."""

    @field_validator("model")
    @classmethod
    def _folder_or_id(cls, value: str) -> str:
        return value  # any name that the server uses

    @field_validator("base_url")
    @classmethod
    def _query_without_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.fragment:
            raise ValueError(
                f"remove #{parts.fragment}: only browsers use it, and it is never sent to a server"
            )
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if names_secret(name):
                raise ValueError(
                    f"`{name}` in base_url would be saved with each snapshot; name the environment"
                    " variable that holds the key: key_env"
                )
        return value

    @model_validator(mode="after")
    def _no_keys_of_the_server(self) -> OpenAI:
        its_own = ("dtype", "device", "attention", "decode", "tokenizer", "trust_remote_code")
        for name in its_own:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"remove {name}: it is a setting of the server")
        if self.kv_cache:
            raise ValueError(
                "kv_cache is a setting of the server: start it with --kv-cache-dtype fp8 (vLLM,"
                " SGLang) or with -ctk q8_0 -ctv q8_0 (llama.cpp)"
            )
        if self.draft:
            raise ValueError(
                "draft is a setting of the server: start it with --speculative-config (vLLM),"
                " --speculative-algorithm (SGLang) or -md (llama.cpp)"
            )
        if self.server is None and "{port}" in self.base_url:
            raise ValueError(
                "{port} in base_url is only for a server that quantchat starts, [variants.server]"
            )
        return self


class _Engine(Engine[OpenAI]):
    variant_table = OpenAI
    summary = 'a server that runs it, at base_url = "http://…/v1" (docs/how-to/servers.md)'
    example: ClassVar[Mapping[str, str]] = {"base_url": "http://127.0.0.1:8000/v1"}
    loader = "quantchat.worker.loaders.openai"
    libraries = (Library("openai", "openai", dependency=False, extra="servers"),)
    is_server = True

    def label(self, spec: OpenAI) -> str:
        return f"{spec.model} at {urlsplit(spec.base_url).netloc}"

    def load_options(self, spec: OpenAI, sampling: Sampling | None) -> dict[str, object]:
        """Return the client's options, with `sampling` and the folder to put first on PATH.

        That folder contains the programs of the environment in which the server is started. From
        this call on, the API key in the environment variable `key_env` is redacted from all output.
        """
        options = spec.options
        if spec.key_env:
            declare_secret(spec.key_env)
        if sampling is not None:
            options["sampling"] = dataclasses.asdict(sampling)
        if spec.server is not None:
            # Imported here, so that reading a profile does not import asyncio.
            from quantchat.host.environments import interpreter

            python = interpreter(None, spec.server.env)
            path = python and str(Path(python).parent)
            options["server"] = {**spec.server.model_dump(), "path": path}
        return options

    def contacts(self, spec: OpenAI) -> list[str]:
        found = []
        if spec.server:
            found.append(f"starts a server: {shlex.join(spec.server.command)}")
        if not spec.server or spec.key_env:
            key = f", with the key in {spec.key_env}" if spec.key_env else ""
            found.append(f"asks the server at {spec.base_url}{key}")
        return found


ENGINE = _Engine()

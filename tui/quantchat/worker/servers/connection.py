"""The HTTP client for a server: it refuses redirects to other servers and too long responses."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit, urlunsplit

from quantchat.common.server_address import is_loopback
from quantchat.worker.failures import Refused
from quantchat.worker.import_pruning import without_collection

CONNECT_S = 5.0
"""Seconds to wait until the server accepts a connection."""

MOST_BYTES = 32 * 2**20
"""Most uncompressed bytes of a response that is not a model's answer, e.g. a list of models."""
MOST_BYTES_OF_AN_ERROR = 2**20
"""Most uncompressed bytes of an error response, of which only one line is shown."""
MOST_BYTES_A_TOKEN = 4096
"""An answer may have this many bytes more than `MOST_BYTES` for each requested token."""


class Connection:
    """An `openai.AsyncOpenAI` client for one server, with limits on what it reads."""

    def __init__(self, base_url: str, *, key_env: str, timeout_s: float, own: bool) -> None:
        """Create the client; it connects with the first request.

        `key_env` is the environment variable with the API key, or empty. `timeout_s` is the longest
        wait for data. `own` says whether this worker starts the server. Raises Refused if the
        client library is missing, or if the key or the proxy settings cannot be used.
        """
        try:
            with without_collection():
                import openai
        except ModuleNotFoundError as error:
            raise Refused(
                "missing_library",
                f"the client library for servers is not installed: {error.name}",
                "python -m pip install 'quantchat[servers]'",
            ) from error

        self._most_bytes = MOST_BYTES
        """Most bytes of each response that begins now."""
        self.url, query = split_query(base_url)
        key = _key(key_env)
        parts = urlsplit(self.url)
        self.where = parts.netloc
        # Use no proxy for a loopback address or for a server that the worker starts.
        # `trust_env=False` also keeps httpx from reading the proxy's address: it would raise an
        # exception if the scheme of the address is unknown.
        direct: dict[str, Any] = {}
        if own or is_loopback(parts.hostname or ""):
            direct = {"trust_env": False}
            if parts.scheme == "https":
                direct["verify"] = ssl.create_default_context()  # reads SSL_CERT_FILE all the same
        try:
            http = openai.DefaultAsyncHttpxClient(
                timeout=openai.Timeout(timeout_s, connect=CONNECT_S),
                event_hooks={"response": [self._check]},
                **direct,
            )
        except (ValueError, ImportError) as error:
            raise Refused(
                "server_unreachable",
                f"the proxy settings of the environment cannot be used: {error}",
                "correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or add the host to NO_PROXY",
            ) from error
        # The client must not retry: the TTFT would include the time of failed tries. The caller may
        # retry.
        self.client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=key,
            max_retries=0,
            default_query=query or None,
            default_headers={"Accept-Encoding": "identity"},  # compression would delay chunks
            http_client=http,
        )

    @contextlib.contextmanager
    def reading_at_most(self, size: int) -> Iterator[None]:
        """Read at most `size` bytes of each response that begins within this context."""
        self._most_bytes = size
        try:
            yield
        finally:
            self._most_bytes = MOST_BYTES

    async def _check(self, response: Any) -> None:
        """Raise Refused for a redirect to another server; limit the bytes read of `response`."""
        if response.is_redirect:
            requested, to = str(response.request.url), response.headers.get("location", "")
            target = urljoin(requested, to)
            if _origin(target) != _origin(requested):
                raise Refused(
                    "server_refused",
                    f"the server at {self.where} redirects ({response.status_code}) to "
                    f"{_origin(target)}, another server",
                    "if you mean that server, name it in base_url",
                )
        httpx = sys.modules[type(response).__module__.partition(".")[0]]  # httpx or httpx2
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused(
                "server_refused",
                f"the server at {self.where} compresses its answers unasked ({encoding})",
                "turn compression off in the server, or in the proxy in front of it",
            )
        compressed = encoding not in ("", "identity")
        most = MOST_BYTES_OF_AN_ERROR if response.is_error else self._most_bytes
        source, refusal = response.stream, self._too_long

        class Limited(httpx.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                left = most
                async for piece in _inflated(source) if compressed else source:
                    left -= len(piece)
                    if left < 0:
                        raise refusal(most)
                    yield piece

            async def aclose(self) -> None:
                await source.aclose()

        response.stream = Limited()

    def _too_long(self, most: int) -> Refused:
        return Refused(
            "stream_cut",
            f"the server at {self.where} sent more than {most >> 20} MiB, far more than requested",
            "check which program answers at that address: its response is not read further",
        )


_INFLATED = 1 << 16
"""Most bytes decompressed at a time: a few compressed bytes can expand to gigabytes."""


async def _inflated(source: Any) -> AsyncIterator[bytes]:
    """Yield the bytes of `source`, gzip or zlib, decompressed in pieces.

    Raises Refused if the data is damaged.
    """
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        async for data in source:
            while data:
                yield stream.decompress(data, _INFLATED)
                data = stream.unconsumed_tail
        yield stream.flush()  # a few bytes at most
    except zlib.error as error:
        raise Refused(
            "stream_cut", f"the server sent compressed data that is damaged: {error}", "ask again"
        ) from error


def split_query(base_url: str) -> tuple[str, dict[str, object]]:
    """Return `base_url` without its query, and the query, which is sent with each request."""
    parts = urlsplit(base_url)
    query: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), query


def _key(key_env: str) -> str:
    """Return the API key in the environment variable `key_env`, or "none" if `key_env` is empty.

    Raises Refused if the variable is not set or its value cannot be sent in an HTTP header.
    """
    if not key_env:
        return "none"  # the client requires one; servers without keys ignore it
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise Refused(
            "server_denied",
            f"the environment variable {key_env} is not set",
            "set it to the server's key before starting quantchat, or remove key_env",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Refused(
            "server_denied",
            f"the key in the environment variable {key_env} has a space, a line break or another "
            "character that no key contains",
            f"set {key_env} to the key only",
        )
    return key


def _origin(url: str) -> str:
    """Return scheme, host and port of `url`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()

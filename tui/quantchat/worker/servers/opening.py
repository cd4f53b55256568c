"""Open a server for a variant: start it if the profile says so, wait until it answers, connect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from quantchat.wire.codec import from_json
from quantchat.wire.messages import LoadModel
from quantchat.wire.redaction import declare_secret, guard_streams
from quantchat.worker.failures import Refused
from quantchat.worker.servers.started import ServerCommand, StartedServer, with_port

if TYPE_CHECKING:
    from quantchat.worker.servers.remote import RemoteDecoder

STARTING = "starting the server"


@dataclass
class OpenedServer:
    """A connected server, and when each stage of opening it ended.

    The times are in seconds of `time.perf_counter`.
    """

    decoder: RemoteDecoder
    imported: float
    """When the client's libraries were imported."""
    started: float
    """When a server that quantchat starts was ready; otherwise the same as `imported`."""
    ready: float
    """When the server had answered the first request."""


class Opener:
    """Opens the server of one variant.

    `tell` is called with the name of a stage and a detail, e.g. a line of the server's output. If a
    server that quantchat has started ends, `failed` is called with a Refused from another thread.
    """

    def __init__(
        self, tell: Callable[[str, str], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._tell, self._failed = tell, failed
        self._server: StartedServer | None = None

    def open(self, command: LoadModel, loader: ModuleType) -> OpenedServer:
        """Return the decoder for the server once the server has answered a request. Raises Refused.

        `loader` is the module that creates the decoder (see `quantchat.worker.loaders`).
        """
        own = bool(command.options.get("server"))
        wait: Callable[[str], None] | None = None
        if own:
            command = replace(command, options=with_port(command.options))
        if key_env := command.option("key_env", ""):
            declare_secret(key_env)
            guard_streams()
        decoder: RemoteDecoder = loader.load(command)
        imported = time.perf_counter()
        if own:
            server = self._start(command)

            def wait(message: str) -> None:
                server.wait_longer(message, lambda line: self._tell(STARTING, line))

        started = time.perf_counter()
        self._tell("connecting", "")
        decoder.connect(wait)
        return OpenedServer(decoder, imported, started, time.perf_counter())

    def _start(self, command: LoadModel) -> StartedServer:
        how = from_json(ServerCommand, command.options["server"])
        self._tell(STARTING, how.command[0])
        self._server = StartedServer(how, command.option("base_url", ""), self._failed)
        self._server.wait(lambda line: self._tell(STARTING, line))
        # If the server ends, report a failure of the variant, which also ends a running answer.
        self._server.watch(lambda *failure: self._failed(Refused(*failure)))
        return self._server

    def explains(self, error: BaseException) -> bool:
        """Return whether `error` was raised because a server that quantchat started has ended."""
        return self._server is not None and self._server.explains(error)

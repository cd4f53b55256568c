"""A server that speaks OpenAI's protocol: it runs the model, and this process asks it."""

from __future__ import annotations

from quantchat.wire.messages import Load
from quantchat.worker.servers.remote import RemoteDecoder

SERVER = True


def load(command: Load) -> RemoteDecoder:
    """Return what asks the server, not connected yet. Raises Refused."""
    return RemoteDecoder(command)

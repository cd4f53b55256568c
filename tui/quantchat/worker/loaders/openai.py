"""Connect to a server that speaks OpenAI's protocol; the server runs the model."""

from __future__ import annotations

from quantchat.wire.messages import LoadModel
from quantchat.worker.servers.remote import RemoteDecoder

SERVER = True


def load(command: LoadModel) -> RemoteDecoder:
    """Return a client of the server that `command` names. The client is not connected yet.

    Raises Refused if the client library is missing or a setting cannot be used.
    """
    return RemoteDecoder(command)

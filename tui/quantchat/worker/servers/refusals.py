"""Turn the errors of a server or the network into a Refused: a reason in one line, and a hint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.servers.stream import ServerError, mapping, name, whole_characters

_TRANSPORT = {"httpx", "httpx2", "httpcore", "httpcore2", "anyio"}
"""Packages whose exceptions the `openai` client does not wrap while it reads a stream."""


_NAMED = 5
"""Most models whose names a hint lists."""
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|max_model_len|supports at most \d+ completion tokens|"
    r"must have less than \d+ tokens|"
    r"`inputs` tokens \+ `max_new_tokens`",
    re.IGNORECASE,
)
"""Parts of the messages about a prompt that does not fit into the context; the last two lines are
TGI's, the others are of vLLM, SGLang and llama.cpp."""


class StillLoading(Refused):
    """Raised if a server accepts requests but still loads its model (status 503)."""


def is_transport(error: BaseException) -> bool:
    """Return whether the connection failed, as opposed to an error that the server sent."""
    import openai

    if isinstance(error.__cause__, Refused):  # raised by quantchat's code within the client
        return False
    if isinstance(error, openai.APIConnectionError):
        return True
    return type(error).__module__.partition(".")[0] in _TRANSPORT


def is_timeout(error: BaseException) -> bool:
    """Return whether the server did not answer in time; each library has its own class for that."""
    return "Timeout" in type(error).__name__


def is_of_the_request(error: BaseException) -> bool:
    """Return whether the server rejects the request itself, e.g. a parameter."""
    import openai

    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return True
    # TGI checks a request after it has opened the stream, with status 200.
    body = mapping(error.body) if isinstance(error, ServerError) else {}
    return body.get("http_status_code") in (400, 422)


_PARAMETERS = re.compile(
    r"\b(max_tokens|temperature|seed|top_p|top_k|repetition_penalty|repeat_penalty|ignore_eos)\b"
)
"""Parameters that a message may name."""
_UNKNOWN = re.compile(
    r"max_completion_tokens|unsupported|not supported|unknown|extra|unexpected", re.I
)
"""Words of a message that refuses a parameter as such. A message without them refuses only the
parameter's value."""


def named_parameters(error: Exception) -> set[str]:
    """Return the parameters that the server does not accept, as far as `error` names them."""
    message = _message(error)
    if not is_of_the_request(error) or _TOO_LONG.search(message):
        return set()
    named = set(_PARAMETERS.findall(message))
    body = mapping(getattr(error, "body", None))
    named.add(name(body.get("param")))
    details = body.get("detail")
    for detail in details if isinstance(details, list) else []:
        place = mapping(detail).get("loc")  # pydantic names the parameter here
        named |= (
            {one for one in place if isinstance(one, str)} if isinstance(place, list) else set()
        )
    if not _UNKNOWN.search(str(getattr(error, "body", ""))):
        named.discard("max_tokens")  # only its value is refused
    return named


def refusal(
    error: Exception, *, where: str, model: str, key_env: str, has: Sequence[str] = ()
) -> Refused | None:
    """Return the Refused for the `error` of a request to a server; None for an unknown error.

    `where` is the server's host and port, `model` the requested model, and `key_env` the
    environment variable with the API key, or empty. `has` are the names of the models that the
    server lists, if the requested model is not among them.
    """
    import openai

    if is_timeout(error):
        return Refused(
            "server_silent",
            f"the server at {where} did not answer in time",
            "look at the server's log, or raise timeout_s in the variant",
        )
    if is_transport(error):
        cause = error.__cause__ or error
        return Refused(
            "server_unreachable",
            f"no connection to the server at {where}: {_line(cause)}",
            "start the server, or correct base_url in the variant; then retry",
        )
    if isinstance(error, openai.APIStatusError) and _wants_a_key(error):
        why = f"it rejects the key in {key_env}" if key_env else "it requires a key"
        return Refused(
            "server_denied",
            f"the server at {where} refused ({error.status_code}): {why}",
            'put a key into an environment variable and name it: key_env = "…_API_KEY"',
        )
    if isinstance(error, openai.NotFoundError) or (
        # LiteLLM answers an unknown name with "bad request".
        has and isinstance(error, openai.BadRequestError) and model in _message(error)
    ):
        more = ", …" if len(has) > _NAMED else ""
        return Refused(
            "server_refused",
            f"the server at {where} does not know {model} ({error.status_code}): {_message(error)}",
            f"correct `model`: the server has {', '.join(has[:_NAMED])}{more}"
            if has
            else "correct `model`, or base_url, which usually ends with /v1",
        )
    if isinstance(error, openai.RateLimitError):
        wait = error.response.headers.get("retry-after", "")
        return Refused(
            "server_busy",
            f"the server at {where} accepts no more requests now (429): {_message(error)}",
            f"wait {wait} s and ask again" if wait.isdecimal() else "wait, and ask again",
        )
    if is_of_the_request(error) and _TOO_LONG.search(_message(error)):
        return Refused(
            "context_full",
            f"the prompt does not fit into the context of the server at {where}: {_message(error)}",
            "remove the oldest turn, start a new chat, or lower max_new_tokens",
        )
    if isinstance(error, openai.APIStatusError) and error.status_code == 503:
        return StillLoading(
            "server_refused",
            f"the server at {where} answered with 503: {_message(error)}",
            "wait until it has loaded its model, then retry; or look at the server's log",
        )
    if isinstance(error, openai.APIStatusError):
        return Refused(
            "server_refused",
            f"the server at {where} answered with {error.status_code}: {_message(error)}",
            "look at the server's log",
        )
    if isinstance(error, ServerError):  # sent within a stream, or in place of one
        return Refused(
            "stream_cut",
            f"the server at {where} broke the answer off: {_message(error)}",
            "look at the server's log",
        )
    return None


def cut_off(where: str, reason: str) -> Refused:
    """Return the Refused for an answer that broke off; `where` is the server's host and port."""
    return Refused(
        "stream_cut",
        f"the stream from {where} was cut: {reason}",
        "the text so far is kept; send the prompt again, which opens a new connection",
    )


def _wants_a_key(error: Any) -> bool:
    """Return whether `error` says that a valid key is missing.

    LiteLLM without a database reports that with the status "bad request".
    """
    error_type = error.body.get("type") if isinstance(error.body, dict) else None
    return error.status_code in (401, 403) or error_type == "no_db_connection"


def _message(error: Any) -> str:
    """Return the message in the response's body, or else the exception's message."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    return on_one_line(whole_characters(str(body))) if body else _line(error)


def _line(error: BaseException) -> str:
    return on_one_line(str(error) or type(error).__name__)

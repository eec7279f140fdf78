"""Pretrained weights from Hugging Face's hub: whether it answers is found out once, and told in one line."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from dtn_det._optional import require

_SECONDS = 5.0


@contextmanager
def hub_asked_once() -> Iterator[str]:
    """Let the hub's client take what it has kept if the hub does not answer, instead of asking again for a minute.

    Its warnings are held back meanwhile, for what it raises in the end says the same.

    Yields:
        Why the hub does not answer, or nothing.
    """
    constants = require("huggingface_hub.constants", "cls")
    utils = require("huggingface_hub.utils", "cls")
    verbosity, offline = utils.logging.get_verbosity(), constants.HF_HUB_OFFLINE
    fault = "it is switched off by HF_HUB_OFFLINE" if offline else _fault(constants.ENDPOINT)
    utils.logging.set_verbosity_error()
    try:
        _switch(constants, utils, offline or bool(fault))
        yield f"no answer from {constants.ENDPOINT} ({fault})" if fault else ""
    finally:
        utils.logging.set_verbosity(verbosity)
        _switch(constants, utils, offline)


def _switch(constants: object, utils: object, offline: bool) -> None:
    """What the variable HF_HUB_OFFLINE does, which is read only once."""
    constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    # Sessions hold what they were begun with; later versions of the client ask each time.
    getattr(utils, "reset_sessions", lambda: None)()


def _fault(endpoint: str) -> str:
    """Why there is no connection, or nothing: an error that the hub itself sends, or of certificates, is none."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else str(reason)
    return ""

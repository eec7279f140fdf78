"""The options in a message, as a user copies them from the terminal."""

from __future__ import annotations

import re
import shlex


def printed_options(message: str) -> list[str]:
    """``KEY=VALUE`` of each option behind the last ``--cfg-options`` of a message."""
    found = re.match(r"((?:[\w.]+=(?:'[^']*'|[^\s:,;]+) ?)+)", message.rpartition("--cfg-options ")[2])
    assert found is not None, message
    return shlex.split(found[1])

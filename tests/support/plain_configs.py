"""Has MMEngine store configs without line breaks in long lines; import it before one is stored.

MMEngine formats the text of a config several times in each training, which takes a second each time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

if find_spec("yapf"):
    from yapf.yapflib import yapf_api

    def _unchanged(text: str, **_: Any) -> tuple[str, bool]:
        return text, False

    yapf_api.FormatCode = _unchanged

"""Libraries that the ML libraries import where they are installed, and that no answer needs.

They cost a worker some 120 MiB and most of a second (`python benchmarks/imports.py`), and what a
variant holds in memory should be its own.
"""

from __future__ import annotations

import sys
from typing import Any

from quantchat.worker.protocol import Load

_EVERYWHERE = ("matplotlib", "pandas", "scipy", "sklearn")
_UNLESS_TRANSFORMERS = ("torchao",)
"""The engine `transformers` loads torchao's own checkpoints."""

_ENGINES = ("bitsandbytes", "gptq", "transformers")
"""Those whose libraries were seen to do without; others may be of any version."""


def hide(command: Load) -> None:
    """Let what `command` does not need be "not installed" in this process, before the imports.

    A module that is None in `sys.modules` cannot be imported (Python's own rule), and transformers
    takes it for absent. Code that a model's repository brings may need anything: nothing is hidden
    from it.
    """
    if command.engine not in _ENGINES or command.trust_remote_code:
        return
    more = () if command.engine == "transformers" else _UNLESS_TRANSFORMERS
    modules: dict[str, Any] = sys.modules
    for name in (*_EVERYWHERE, *more):
        modules.setdefault(name, None)

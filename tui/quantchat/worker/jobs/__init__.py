"""Jobs: what a worker of its own does besides answering. Most are stages of making a checkpoint.

A job is a module with `run(options, report) -> result`. `options` and the result are plain JSON
values; `report(done, total, detail)` may be called from any thread. A job writes into the folder
`options["output"]`, which exists, and scratch files into `options["scratch"]`, nowhere else.
What it raises is told as a failure.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""How far a job is: `done` of `total` (0 where it cannot be counted), and a word on it."""

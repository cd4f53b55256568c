"""Import this before torch: it gives this process's libraries the environment of a worker.

With another environment, spinning OpenMP threads made a token ten times slower on two busy cores,
and CUDA numbers its devices in another order.
"""

from __future__ import annotations

import os

from quantchat.host.worker_process import WORKER_VARIABLES

os.environ.update({**WORKER_VARIABLES, **os.environ})

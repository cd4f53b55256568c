"""Sets the environment variables of a worker in this process; import this module before torch.

Without these variables, OpenMP threads that spin while they wait made a token ten times slower on
two busy cores, and CUDA numbers its devices in another order than nvidia-smi.
"""

from __future__ import annotations

import os

from quantchat.host.worker_process import WORKER_VARIABLES

os.environ.update({**WORKER_VARIABLES, **os.environ})

"""Import this before torch: the libraries of this process get the environment of a worker.

Spinning threads of OpenMP made a token ten times slower on two busy cores, and without it CUDA
numbers its devices in another order.
"""

from __future__ import annotations

import os

from quantchat.host.worker_process import SURROUNDINGS

os.environ.update({**SURROUNDINGS, **os.environ})

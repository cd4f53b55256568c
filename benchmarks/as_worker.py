"""Imported before torch: this process' libraries find what a worker's would.

OpenMP's threads that spin made a token ten times as long on two busy cores, and CUDA by itself
counts its devices in another order.
"""

from __future__ import annotations

import os

from quantchat.host.worker_process import SURROUNDINGS

os.environ.update({**SURROUNDINGS, **os.environ})

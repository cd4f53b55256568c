"""Settings for a program that loads a model itself, without a worker."""

from __future__ import annotations

import os
from typing import Any

ENVIRONMENT = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "GOMP_SPINCOUNT": "10000"}
"""Environment variables for a process that loads models, as for a worker."""

OPTIONS: dict[str, dict[str, Any]] = {
    "gptq": {"kernel": "triton"},
    "bitsandbytes": {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"},
    "transformers": {},
}
"""Options by engine that need no compiler on a GPU."""

"""Settings for a program that loads a model itself, without a worker."""

from __future__ import annotations

import os
from typing import Any

ENVIRONMENT = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "GOMP_SPINCOUNT": "10000"}
"""What a worker's libraries want of their environment."""

OPTIONS: dict[str, dict[str, Any]] = {
    "gptq": {"kernel": "triton"},
    "bitsandbytes": {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"},
    "transformers": {},
}
"""Of the engines, on a GPU: what needs no compiler there."""

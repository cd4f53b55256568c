"""The environment a worker's libraries want, for a program that loads a model by itself."""

from __future__ import annotations

import os

ENVIRONMENT = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "GOMP_SPINCOUNT": "10000"}

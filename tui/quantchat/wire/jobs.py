"""What the program and the jobs of a worker call by the same name."""

from __future__ import annotations

READY = "ready"
COMPILES = "compiles first"
UNUSABLE = "cannot run"
MUST_COMPILE = "must be compiled"
"""How the detail begins of a kernel that cannot run since there is nothing to compile it with."""

CHATS = "chats.jsonl"
"""The calibration chats' file, in the folder they are written into."""

CHATS_TEXT = "chats.txt"
"""The same as the text a model reads, one after the other."""

LEAST = 32
"""Samples, however narrow the model."""

LONG, SHORT = 512, 160
"""Longest sample in tokens, on a GPU and on a CPU."""

SETTINGS = (
    "bits",
    "group_size",
    "desc_act",
    "act_group_aware",
    "sym",
    "damp_percent",
    "true_sequential",
)
"""Options that are handed to GPTQModel's QuantizeConfig as they are."""

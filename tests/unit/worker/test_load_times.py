"""What the stages of loading a variant took."""

from __future__ import annotations

from quantchat.wire.messages import IMPORTING, WARMING_UP, WEIGHTS
from quantchat.worker.main import seconds_by_stage


def test_the_layers_that_an_engine_quantizes_are_part_of_the_weights() -> None:
    begun = [
        (IMPORTING, 1.0),
        ("compiling the kernel marlin", 3.0),
        (WEIGHTS, 4.0),
        ("quantizing layer 1 of 2", 5.0),
        ("quantizing layer 2 of 2", 7.0),
        (WARMING_UP, 9.0),
    ]
    assert dict(seconds_by_stage(begun, 10.0)) == {
        IMPORTING: 2.0,
        "compiling the kernel marlin": 1.0,
        WEIGHTS: 5.0,
        WARMING_UP: 1.0,
    }

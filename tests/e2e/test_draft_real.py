"""Speculative decoding as a user measures it: the program, its workers and a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fakes.tiny_folder import tiny_folder
from quantchat.snapshot import store
from quantchat.wire.messages import PROMPT_LOOKUP

PROFILE = """
name = "Does a draft pay?"
variants = [
    { label = "alone", engine = "transformers", model = "./one", decode = "generate" },
    { label = "drafted", engine = "transformers", model = "./one", draft = "DRAFT" },
]
generation.max_new_tokens = 24
run = { rounds = 1, warmup = 0, prompts = ["Hello there, hello there, hello"] }
"""


def test_a_variant_with_a_draft_is_measured_against_itself_without(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "one")
    shares = {}
    for draft in ("./one", PROMPT_LOOKUP):
        profile, saved = tmp_path / "profile.toml", tmp_path / "saved.json"
        profile.write_text(PROFILE.replace("DRAFT", draft))
        saved.unlink(missing_ok=True)
        command = ["run", str(profile), "--ignore-eos", "-o", str(saved)]
        run = subprocess.run(
            [sys.executable, "-m", "quantchat", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "QUANTCHAT_CACHE": str(tmp_path / "cache")},
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        snapshot = store.load(saved)
        alone, drafted = snapshot.turns[0].answers
        assert alone.ids == drafted.ids and len(drafted.ids) == 24
        assert alone.drafts is None and drafted.drafts is not None
        # Tokens of one pass have one time, and no gap between them.
        assert len(set(drafted.times_ns)) == drafted.drafts.steps < 24
        shares[draft] = drafted.drafts.acceptance
        ledgers = [variant.ledger for variant in snapshot.variants]
        assert [one.draft > 0 for one in ledgers if one] == [False, draft == "./one"]
    assert shares["./one"] == 100
    assert 0 < (shares[PROMPT_LOOKUP] or 0) < 100

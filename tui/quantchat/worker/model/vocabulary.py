"""Compute a hash of a vocabulary, which shows whether token ids of two variants are comparable.

Unlike a hash of the tokenizer's files, it does not depend on the library that reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    """Return the SHA-256 over all tokens with their ids, special and added tokens included."""
    body = json.dumps(sorted((token_id, token) for token, token_id in vocabulary.items()))
    return hashlib.sha256(body.encode()).hexdigest()

"""The results for one shape on one device: a file that later runs add to."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PREFIX = "llama7b"
"""How the names of the result files begin."""


class SavedResults:
    """The results of all runs so far, saved after each figure.

    Each figure names the run that measured it (`run`, an index into `runs`), which holds the date,
    the command and the bandwidth: MBU is against the bandwidth of the figure's own run. A new
    figure replaces the old one of the same variant, mode and context; a failure replaces no
    figure.
    """

    def __init__(self, folder: Path, shape: str, device: str) -> None:
        """Read the results in `folder`. Raises SystemExit where it cannot be read or written."""
        self.file = folder / f"{PREFIX}-{shape}-{_slug(device)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SystemExit(f"{folder}: cannot be written: {error.strerror}") from None
        self.result: dict[str, Any] = {"shape": shape, "device": device, "runs": [], "variants": {}}
        if self.file.exists():
            self.result = read(self.file)
        if self.result["device"] != device:
            raise SystemExit(
                f"{self.file}: was measured on {self.result['device']!r}, this is {device!r}: "
                "name another folder with --results"
            )

    @property
    def variants(self) -> dict[str, Any]:
        """Results by label."""
        variants: dict[str, Any] = self.result["variants"]
        return variants

    def begin(self, run: dict[str, Any]) -> None:
        """Add `run` (date, command, bandwidth): it measures the figures that follow."""
        self.result["runs"].append(run)

    def left(self, label: str, mode: str, contexts: Sequence[int]) -> list[int]:
        """Return the `contexts` that have no figures yet."""
        there = self.variants.get(label, {}).get("modes", {}).get(mode, {}).get("contexts", {})
        return [one for one in contexts if not measured(there.get(str(one), {}))]

    def refuse(self, label: str, reason: str) -> None:
        """Save why the variant could not be loaded at all."""
        if not self.variants.get(label, {}).get("modes"):
            self.variants[label] = {"not_run": reason, "run": self._run}
            self._write()

    def refuse_mode(self, label: str, mode: str, kernel: str, reason: str) -> None:
        """Save why the mode does not run."""
        modes = self._modes(label)
        if not any(measured(one) for one in modes.get(mode, {}).get("contexts", {}).values()):
            modes[mode] = {"kernel": kernel, "not_run": reason, "run": self._run}
            self._write()

    def add(
        self, label: str, mode: str, loaded: dict[str, Any], context: int, figures: dict[str, Any]
    ) -> None:
        """Save figures at one context, or why there are none; `loaded` describes the variant."""
        modes = self._modes(label)
        contexts = modes.get(mode, {}).get("contexts", {})
        if measured(figures) or not measured(contexts.get(str(context), {})):
            contexts[str(context)] = {**figures, "run": self._run}
        modes[mode] = {**loaded, "contexts": dict(sorted(contexts.items(), key=_tokens))}
        self._write()

    def add_pair(self, figures: dict[str, Any]) -> None:
        """Save the figures of two variants together and in turn, or why there are none."""
        if "not_run" not in figures or "not_run" in self.result.get("pair", {"not_run": ""}):
            self.result["pair"] = {**figures, "run": self._run}
            self._write()

    @property
    def _run(self) -> int:
        return len(self.result["runs"]) - 1

    def _modes(self, label: str) -> dict[str, Any]:
        entry = self.variants.setdefault(label, {})
        if "not_run" in entry:
            entry.clear()
        modes: dict[str, Any] = entry.setdefault("modes", {})
        return modes

    def _write(self) -> None:
        """Replace the file at once: a run may end at any moment."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.file)


def read(file: Path) -> dict[str, Any]:
    """Return the results in `file`. Raises SystemExit where it holds something else."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: cannot be read: {error}") from None
    if not isinstance(result, dict) or not {"shape", "device", "runs", "variants"} <= result.keys():
        raise SystemExit(f"{file}: is no result of this benchmark: move it away")
    return result


def measured(figures: dict[str, Any]) -> bool:
    """Return whether `figures` of one context were measured; else they hold the reason why not."""
    return "tok_s" in figures


def _tokens(item: tuple[str, Any]) -> int:
    return int(item[0])


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"

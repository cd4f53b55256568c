"""What `seven` measured of one shape on one device, in a file that later runs add to."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Kept:
    """The result of all runs so far, written after each figure.

    Each figure names the run that measured it (`run`, an index into `runs`), which holds the date,
    the command and the bandwidth: MBU is against the bandwidth of the figure's own run. A new
    figure replaces the old one of the same variant, mode and context; what could not be run
    replaces no figure.
    """

    def __init__(self, folder: Path, shape: str, device: str) -> None:
        """Read what is there. Raises SystemExit where nothing could be read or written there."""
        self.file = folder / f"seven-{shape}-{_slug(device)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SystemExit(f"{folder}: nothing can be written there: {error.strerror}") from None
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
        """By label."""
        variants: dict[str, Any] = self.result["variants"]
        return variants

    def begin(self, run: dict[str, Any]) -> None:
        """What follows is measured by `run`: date, command, bandwidth."""
        self.result["runs"].append(run)

    def left(self, label: str, mode: str, contexts: Sequence[int]) -> list[int]:
        """Those of `contexts` that have no figures yet."""
        there = self.variants.get(label, {}).get("modes", {}).get(mode, {}).get("contexts", {})
        return [one for one in contexts if not measured(there.get(str(one), {}))]

    def refuse(self, label: str, reason: str) -> None:
        """The variant could not be loaded at all."""
        if not self.variants.get(label, {}).get("modes"):
            self.variants[label] = {"not_run": reason, "run": self._run}
            self._write()

    def refuse_mode(self, label: str, mode: str, kernel: str, reason: str) -> None:
        """The mode could not be had."""
        modes = self._modes(label)
        if not any(measured(one) for one in modes.get(mode, {}).get("contexts", {}).values()):
            modes[mode] = {"kernel": kernel, "not_run": reason, "run": self._run}
            self._write()

    def add(
        self, label: str, mode: str, loaded: dict[str, Any], context: int, figures: dict[str, Any]
    ) -> None:
        """Figures at one context, or why there are none; `loaded` is what loading it gave."""
        modes = self._modes(label)
        contexts = modes.get(mode, {}).get("contexts", {})
        if measured(figures) or not measured(contexts.get(str(context), {})):
            contexts[str(context)] = {**figures, "run": self._run}
        modes[mode] = {**loaded, "contexts": dict(sorted(contexts.items(), key=_tokens))}
        self._write()

    def add_pair(self, figures: dict[str, Any]) -> None:
        """Two variants together and in turn, or why not."""
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
        """Whole or not at all: a run may be ended at any moment."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.file)


def read(file: Path) -> dict[str, Any]:
    """A kept result. Raises SystemExit where it is none."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: cannot be read: {error}") from None
    if not isinstance(result, dict) or not {"shape", "device", "runs", "variants"} <= result.keys():
        raise SystemExit(f"{file}: is no result of seven.py: move it away")
    return result


def measured(figures: dict[str, Any]) -> bool:
    """Whether figures at one context are there, not the reason why there are none."""
    return "tok_s" in figures


def _tokens(item: tuple[str, Any]) -> int:
    return int(item[0])


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"

"""The list of saved snapshots on the start screen, and what can be done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from quantchat.app.commands import SNAPSHOT_COMMANDS
from quantchat.app.messages import ProfileChosen
from quantchat.app.widgets.text_layout import outside, quiet
from quantchat.document.figures import plural
from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:  # imported after frame 1
    from quantchat.features.measure.rerun import Rerun
    from quantchat.snapshot import store
    from quantchat.snapshot.schema import Snapshot

RECENT = 20
"""How many snapshots are listed, the newest first."""


class SavedList(OptionList):
    """Lists the snapshots of a folder; shows, compares, reports, repeats and deletes them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        one.binding() for one in SNAPSHOT_COMMANDS if one.id != "open"
    ]

    def __init__(self, folder: Path | None) -> None:
        """List the snapshots of `folder`; None means the user's default folder."""
        super().__init__(id="snapshots")
        self._folder = folder
        self._listed: list[store.Listed] = []
        self._marked: set[Path] = set()

    def fill(self) -> None:
        """Read the folder again; keep marks and the place."""
        from quantchat.snapshot import store

        place = self.highlighted or 0
        self._listed = store.recent(self._folder, RECENT)
        self._marked &= {one.path for one in self._listed}
        self.clear_options()
        if self._listed:
            self.add_options(map(self._option, self._listed))
            self.highlighted = min(place, len(self._listed) - 1)
        else:
            self.add_option(Option(quiet("none yet; ^S in a comparison saves one"), disabled=True))

    def _option(self, listed: store.Listed) -> Option:
        mark = Content.styled("● " if listed.path in self._marked else "  ", "$primary")
        return Option(mark + _about(listed))

    @property
    def _current(self) -> list[Path]:
        """The highlighted snapshot, as a list; empty if there is none."""
        place = self.highlighted
        return [] if place is None or not self._listed else [self._listed[place].path]

    def _chosen(self) -> list[Path]:
        """The marked snapshots, the oldest first; without marks, the highlighted one."""
        marked = [one.path for one in reversed(self._listed) if one.path in self._marked]
        return marked or self._current

    def action_mark(self) -> None:
        """Mark the highlighted snapshot, or remove its mark; go to the next one."""
        for path in self._current:
            self._marked ^= {path}
            place = self.highlighted or 0
            self.replace_option_prompt_at_index(place, self._option(self._listed[place]).prompt)
            self.action_cursor_down()

    @on(OptionList.OptionSelected)
    def _show(self) -> None:
        from quantchat.app.screens.recovered import RecoveredScreen
        from quantchat.app.screens.snapshot import SnapshotScreen
        from quantchat.snapshot import recovered

        for path, snapshot in self._loaded(self._current):
            screen: ModalScreen[bool] = (
                RecoveredScreen(path, snapshot)
                if recovered.is_recovered(path)
                else SnapshotScreen(snapshot)
            )
            self.app.push_screen(screen, lambda decided: self.fill() if decided else None)

    async def action_compare(self) -> None:
        """Show the marked snapshots compared."""
        from quantchat.app.screens.snapshot import ComparedScreen

        saved = self._loaded(self._chosen())
        if len(saved) < 2:
            self._complain("mark two or more snapshots with Space, then press c")
            return
        try:
            screen = await asyncio.to_thread(ComparedScreen.of, _named(saved))
        except UserError as error:
            self._complain(str(error))
        else:
            self.app.push_screen(screen)

    async def action_report(self) -> None:
        """Write an HTML report of the marked snapshots beside them."""
        from quantchat.report import writer

        saved = self._loaded(self._chosen())
        if not saved:
            return
        stem = saved[0][0].stem + ("" if len(saved) == 1 else f"-and-{len(saved) - 1}-more")
        output = saved[0][0].with_name(f"{stem}.html")
        self.app.notify("Writing the report …", timeout=2)
        try:
            path = await asyncio.to_thread(writer.write, _named(saved), str(output))
        except UserError as error:
            self._complain(str(error))
        else:
            self.app.notify(one_line(str(path)), title="Report written", timeout=15, markup=False)

    def action_rerun(self) -> None:
        """Open the variants of the highlighted snapshot and measure them as it says."""
        from quantchat.features.measure.rerun import rerun_of

        for path, snapshot in self._loaded(self._current):
            try:
                same = rerun_of(snapshot, where=path.name)
                _only_trusted(same, path, "quantchat rerun --trust")
            except UserError as error:
                self._complain(str(error))
            else:
                self.post_message(ProfileChosen(same.profile, same.pair, same.plan))

    def action_continue_chat(self) -> None:
        """Open the variants of the highlighted snapshot and continue its chat."""
        from quantchat.features.measure.rerun import chat_of

        for path, snapshot in self._loaded(self._current):
            try:
                same = chat_of(snapshot, where=path.name)
                _only_trusted(same, path, "quantchat --continue")
            except UserError as error:
                self._complain(str(error))
            else:
                self.post_message(ProfileChosen(same.profile, same.pair, chat=snapshot))

    def action_delete(self) -> None:
        """Delete the highlighted snapshot after a question."""
        from quantchat.app.screens.snapshot import DeleteScreen

        for path in self._current:
            self.app.push_screen(
                DeleteScreen(path), lambda deleted: self.fill() if deleted else None
            )

    def _loaded(self, paths: Sequence[Path]) -> list[tuple[Path, Snapshot]]:
        """Return the snapshots of `paths`; none if one cannot be read, and say why."""
        from quantchat.snapshot import store

        try:
            return [(path, store.load(path)) for path in paths]
        except UserError as error:
            self._complain(str(error))
            return []

    def _complain(self, text: str) -> None:
        self.notify(one_line(text), severity="error", timeout=15, markup=False)


def _only_trusted(same: Rerun, path: Path, command: str) -> None:
    """Raise UserError if `same` would start or contact something outside quantchat."""
    if same.trusted:
        raise UserError(
            "; ".join(same.trusted),
            where=path.name,
            hint=f"`{command}` allows what a snapshot names",
        )


def _named(saved: Sequence[tuple[Path, Snapshot]]) -> list[tuple[str, Snapshot]]:
    return [(path.name, snapshot) for path, snapshot in saved]


def _about(listed: store.Listed) -> Content:
    from quantchat.snapshot.recovered import is_recovered

    if listed.problem:
        problem = Content.styled(f"  {one_line(listed.problem)}", "$error")
        return outside(listed.path.name) + problem
    when = listed.created[:16].replace("T", " ")
    # The kind comes first: a narrow terminal cuts off the end of the line.
    parts = [outside(when, "bold"), *([quiet(listed.kind)] if listed.kind else [])]
    parts += [outside(listed.name), outside(" | ".join(listed.variants), "$quiet")]
    if listed.turns or listed.kind in ("", "chat"):
        parts.append(quiet(plural(listed.turns, "turn")))
    if is_recovered(listed.path):
        parts.insert(1, Content.styled("recovered", "$warning"))
    return Content("  ").join(parts)

"""The list of saved snapshots on the start screen, and what can be done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from quantchat.app.commands import SNAPSHOT_COMMANDS
from quantchat.app.crash_recovery import DISK_WAIT_S
from quantchat.app.messages import ProfileChosen
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document.figures import plural
from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:  # imported after the first frame
    from quantchat.features.measure.rerun import Rerun
    from quantchat.snapshot import store
    from quantchat.snapshot.schema import Snapshot

MAX_LISTED = 20
"""How many snapshots are listed, the newest first."""


class SavedList(OptionList):
    """Lists the snapshots of a folder; shows, compares, reports, repeats and deletes them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        command.binding() for command in SNAPSHOT_COMMANDS if command.id != "open"
    ]

    def __init__(self, folder: Path | None) -> None:
        """List the snapshots of `folder`; None means the user's default folder."""
        super().__init__(id="snapshots")
        self._folder = folder
        self._listed: list[store.SnapshotSummary] = []
        self._marked: set[Path] = set()

    @work(exclusive=True, group="fill")
    async def fill(self) -> None:
        """Read the folder again in a thread; keep the marks and the highlighted line."""
        place = self.highlighted or 0
        reading = asyncio.ensure_future(to_daemon_thread(self._recent))
        await asyncio.wait([reading], timeout=DISK_WAIT_S)
        if not reading.done():
            self._show_instead("the disk does not answer yet")
        self._listed = await reading
        self._marked &= {listed.path for listed in self._listed}
        if self._listed:
            self.clear_options()
            self.add_options(map(self._option, self._listed))
            self.highlighted = min(place, len(self._listed) - 1)
        else:
            self._show_instead("none yet; ^S in a comparison saves one")

    def _recent(self) -> list[store.SnapshotSummary]:
        from quantchat.snapshot import store

        return store.recent(self._folder, MAX_LISTED)

    def _show_instead(self, text: str) -> None:
        """Show `text` in place of snapshots."""
        self._listed = []
        self.clear_options()
        self.add_option(Option(quiet(text), disabled=True))

    def _option(self, listed: store.SnapshotSummary) -> Option:
        mark = Content.styled("● " if listed.path in self._marked else "  ", "$primary")
        return Option(mark + _about(listed))

    @property
    def _current(self) -> list[Path]:
        """The highlighted snapshot, as a list; empty if there is none."""
        place = self.highlighted
        return [] if place is None or not self._listed else [self._listed[place].path]

    def _chosen(self) -> list[Path]:
        """The marked snapshots, the oldest first; without marks, the highlighted one."""
        marked = [listed.path for listed in reversed(self._listed) if listed.path in self._marked]
        return marked or self._current

    def action_mark(self) -> None:
        """Mark the highlighted snapshot, or remove its mark; go to the next one."""
        for path in self._current:
            self._marked ^= {path}
            place = self.highlighted or 0
            self.replace_option_prompt_at_index(place, self._option(self._listed[place]).prompt)
            self.action_cursor_down()

    @work(exclusive=True, group="act")
    async def _begin(self, act: Callable[[], Awaitable[None]]) -> None:
        """Call `act`, which reads files, without blocking the keys; report a UserError.

        An earlier `act` that has not ended is cancelled.
        """
        try:
            await act()
        except UserError as error:
            self._complain(str(error))

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self._begin(self._show)

    async def _show(self) -> None:
        from quantchat.app.screens.recovered import RecoveredScreen
        from quantchat.app.screens.snapshot import SnapshotScreen
        from quantchat.snapshot import recovered

        for path, snapshot in await _loaded(self._current):
            screen: ModalScreen[bool] = (
                RecoveredScreen(path, snapshot)
                if recovered.is_recovered(path)
                else SnapshotScreen(snapshot)
            )
            self.app.push_screen(screen, self._fill_if)

    def action_compare(self) -> None:
        """Show a comparison of the marked snapshots."""
        self._begin(self._compare)

    async def _compare(self) -> None:
        from quantchat.app.screens.snapshot import ComparedScreen

        chosen = self._chosen()
        if len(chosen) < 2:
            raise UserError("mark two or more snapshots with Space, then press c")
        saved = await _loaded(chosen)
        screen = await to_daemon_thread(lambda: ComparedScreen.of(_named(saved)))
        self.app.push_screen(screen)

    def action_report(self) -> None:
        """Write an HTML report of the marked snapshots into their folder.

        Without marks, report on the highlighted snapshot.
        """
        self._begin(self._report)

    async def _report(self) -> None:
        from quantchat.report import writer

        saved = await _loaded(self._chosen())
        if not saved:
            return
        stem = saved[0][0].stem + ("" if len(saved) == 1 else f"-and-{len(saved) - 1}-more")
        output = saved[0][0].with_name(f"{stem}.html")
        self.app.notify("Writing the report …", timeout=2)
        path = await to_daemon_thread(lambda: writer.write(_named(saved), str(output)))
        self.app.notify(one_line(str(path)), title="Report written", timeout=15, markup=False)

    def action_rerun(self) -> None:
        """Open the variants of the highlighted snapshot and repeat its measurement."""
        self._begin(self._rerun)

    async def _rerun(self) -> None:
        from quantchat.features.measure.rerun import rerun_of

        for path, snapshot in await _loaded(self._current):
            rerun = rerun_of(snapshot, where=path.name)
            _require_trust(rerun, path, "quantchat rerun --trust")
            self.post_message(ProfileChosen(rerun.profile, rerun.pair, rerun.plan))

    def action_continue_chat(self) -> None:
        """Open the variants of the highlighted snapshot and continue its chat."""
        self._begin(self._continue_chat)

    async def _continue_chat(self) -> None:
        from quantchat.features.measure.rerun import chat_of

        for path, snapshot in await _loaded(self._current):
            rerun = chat_of(snapshot, where=path.name)
            _require_trust(rerun, path, "quantchat --continue")
            self.post_message(ProfileChosen(rerun.profile, rerun.pair, chat=snapshot))

    def action_delete(self) -> None:
        """Ask, then delete the highlighted snapshot."""
        from quantchat.app.screens.snapshot import DeleteScreen

        for path in self._current:
            self.app.push_screen(DeleteScreen(path), self._fill_if)

    def _fill_if(self, changed: bool | None) -> None:
        if changed:
            self.fill()

    def _complain(self, text: str) -> None:
        self.notify(one_line(text), severity="error", timeout=15, markup=False)


async def _loaded(paths: Sequence[Path]) -> list[tuple[Path, Snapshot]]:
    """Return the snapshots of `paths`. Raises UserError if one cannot be read."""
    from quantchat.snapshot import store

    return await to_daemon_thread(
        lambda: [(path, store.load(path)) for path in paths], within_s=DISK_WAIT_S
    )


def _require_trust(rerun: Rerun, path: Path, command: str) -> None:
    """Raise UserError if `rerun` would start or contact something outside quantchat."""
    if rerun.needs_trust:
        raise UserError(
            "; ".join(rerun.needs_trust),
            where=path.name,
            hint=f"if you trust the snapshot, use `{command}` in the shell",
        )


def _named(saved: Sequence[tuple[Path, Snapshot]]) -> list[tuple[str, Snapshot]]:
    return [(path.name, snapshot) for path, snapshot in saved]


def _about(listed: store.SnapshotSummary) -> Content:
    from quantchat.snapshot.recovered import is_recovered

    if listed.problem:
        problem = Content.styled(f"  {one_line(listed.problem)}", "$error")
        return untrusted(listed.path.name) + problem
    when = listed.created[:16].replace("T", " ")
    # The kind comes first: a narrow terminal cuts off the end of the line.
    parts = [untrusted(when, "bold"), *([quiet(listed.kind)] if listed.kind else [])]
    parts += [untrusted(listed.name), untrusted(" | ".join(listed.variants), "$quiet")]
    if listed.turns or listed.kind in ("", "chat"):
        parts.append(quiet(plural(listed.turns, "turn")))
    if is_recovered(listed.path):
        parts.insert(1, Content.styled("recovered", "$warning"))
    return Content("  ").join(parts)

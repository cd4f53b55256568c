"""The start screen: profiles to open, recent snapshots, the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantchat.app.device_watch import DeviceWatch, MakeSampler, Measured, real_sampler
from quantchat.app.widgets.device_line import DeviceLine
from quantchat.app.widgets.text_layout import hints, outside, quiet
from quantchat.document.figures import plural
from quantchat.errors import UserError
from quantchat.text import neutralise, one_line

if TYPE_CHECKING:  # profiles and snapshots are read, and their modules imported, after frame 1
    from quantchat.profile import library
    from quantchat.profile.model import Profile
    from quantchat.snapshot import store

RECENT = 20
"""How many snapshots are listed, the newest first."""
SAMPLE_EVERY_S = 2.0


class StartScreen(Screen[None]):
    """Posts `Chosen` when the user opens a profile; shows snapshots itself."""

    DEFAULT_CSS = """
    StartScreen {
        .part { height: 1fr; }
        .title { height: 1; padding: 0 1; color: $primary; text-style: bold; background: $surface; }
        OptionList { height: 1fr; }
        #profiles { width: 2fr; max-width: 44; }
        #about { width: 3fr; height: 1fr; padding: 0 2; border-left: vkey $rule; }
        #lower { height: auto; max-height: 45%; }
        #snapshots { height: auto; max-height: 12; }
        #hint { height: 1; padding: 0 1; background: $panel; }
    }
    """

    class Chosen(Message):
        """The user opened a profile."""

        def __init__(self, profile: Profile) -> None:
            super().__init__()
            self.profile = profile

    def __init__(
        self,
        snapshots: Path | None = None,
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        """List the snapshots of the folder `snapshots`; None means the user's default folder."""
        super().__init__()
        self._snapshots = snapshots
        self._make_sampler = make_sampler
        self._device_line = DeviceLine("")
        self._watch: DeviceWatch | None = None
        self._entries: list[library.Entry] = []
        self._listed: list[store.Listed] = []

    def compose(self) -> ComposeResult:
        """Lay out the profiles with their descriptions, and the snapshots below."""
        yield self._device_line
        yield Static("Profiles", classes="title")
        with Horizontal(classes="part"):
            yield OptionList(id="profiles")
            yield Static(id="about")
        with Vertical(id="lower"):
            yield Static("Recent snapshots", classes="title")
            yield OptionList(id="snapshots")
        keys = (("Enter", "open"), ("Tab", "other list"), ("F1", "help"), ("^Q", "quit"))
        yield Static(hints(keys), id="hint")

    def on_mount(self) -> None:
        """Fill the lists after the first frame is drawn."""
        # Via the app: a refresh requested while the app starts is not drawn.
        self.app.call_later(self.call_after_refresh, self._fill)

    def _fill(self) -> None:
        from quantchat.profile import library
        from quantchat.snapshot import recovered

        self._watch = DeviceWatch(self._measured, self._make_sampler)
        self._sample()
        self.set_interval(SAMPLE_EVERY_S, self._sample)
        self._entries = library.entries()
        profiles = self.query_one("#profiles", OptionList)
        profiles.add_options(_profile_option(entry) for entry in self._entries)
        profiles.highlighted = 0 if self._entries else None
        profiles.focus()
        self._list_snapshots()
        if recovered.waiting(self._snapshots):
            from quantchat.app.screens.recovered import offer

            offer(self, self._snapshots, self._list_snapshots)

    def _list_snapshots(self) -> None:
        from quantchat.snapshot import store

        self._listed = store.recent(self._snapshots, RECENT)
        snapshots = self.query_one("#snapshots", OptionList)
        snapshots.clear_options()
        if self._listed:
            snapshots.add_options(_snapshot_option(listed) for listed in self._listed)
            snapshots.highlighted = 0
        else:
            snapshots.add_option(
                Option(quiet("none yet; ^S in a comparison saves one"), disabled=True)
            )

    def on_unmount(self) -> None:
        """Close the sampler; the next screen has its own."""
        if self._watch is not None:
            self._watch.close()

    def _sample(self) -> None:
        if self._watch is not None:
            self._watch.ask({})

    def _measured(self, measured: Measured) -> None:
        self._device_line.show(measured.device)

    @on(OptionList.OptionHighlighted, "#profiles")
    def _describe(self, event: OptionList.OptionHighlighted) -> None:
        self.query_one("#about", Static).update(_about(self._entries[event.option_index]))

    @on(OptionList.OptionSelected, "#profiles")
    def _open(self, event: OptionList.OptionSelected) -> None:
        entry = self._entries[event.option_index]
        if entry.profile is not None:
            self.post_message(self.Chosen(entry.profile))
        else:
            self._complain(str(entry.error))

    @on(OptionList.OptionSelected, "#snapshots")
    def _show(self, event: OptionList.OptionSelected) -> None:
        from quantchat.app.screens.recovered import RecoveredScreen
        from quantchat.app.screens.snapshot import SnapshotScreen
        from quantchat.snapshot import recovered, store

        path = self._listed[event.option_index].path
        try:
            snapshot = store.load(path)
        except UserError as error:
            self._complain(str(error))
            return
        self.app.push_screen(
            RecoveredScreen(path, snapshot)
            if recovered.is_recovered(path)
            else SnapshotScreen(snapshot),
            lambda decided: self._list_snapshots() if decided else None,
        )

    def _complain(self, text: str) -> None:
        self.notify(one_line(text), severity="error", timeout=15, markup=False)


def _profile_option(entry: library.Entry) -> Option:
    if entry.profile is None:
        return Option(outside(entry.name) + Content.styled("  invalid", "$error"))
    return Option(outside(entry.name, "bold") + quiet(f"  {entry.origin.value}"))


def _about(entry: library.Entry) -> Content:
    """Return the name, description and variants of a profile, or the errors of an invalid one."""
    if entry.profile is None:
        mistakes = entry.error.lines if entry.error else ()
        return Content.styled(neutralise("\n\n".join(mistakes)), "$error")
    profile = entry.profile
    lines = [outside(profile.name, "bold"), Content(neutralise(profile.description)), Content()]
    for variant in profile.variants:
        lines.append(outside(variant.label, "$primary"))
        lines.append(quiet("  ") + outside(f"{variant.engine} · {variant.model}", "$quiet"))
    return Content("\n").join(lines)


def _snapshot_option(listed: store.Listed) -> Option:
    from quantchat.snapshot.recovered import is_recovered

    if listed.problem:
        return Option(
            outside(listed.path.name) + Content.styled(f"  {one_line(listed.problem)}", "$error")
        )
    when = listed.created[:16].replace("T", " ")
    # The kind comes first: a narrow terminal cuts off the end of the line.
    parts = [outside(when, "bold"), *([quiet(listed.kind)] if listed.kind else [])]
    parts += [outside(listed.name), outside(" | ".join(listed.variants), "$quiet")]
    if listed.turns or listed.kind in ("", "chat"):
        parts.append(quiet(plural(listed.turns, "turn")))
    if is_recovered(listed.path):
        parts.insert(1, Content.styled("recovered", "$warning"))
    return Option(Content("  ").join(parts))

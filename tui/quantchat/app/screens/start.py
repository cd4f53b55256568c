"""The start screen: profiles to open, recent snapshots, the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Key
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantchat.app.commands import OPEN_PROFILE, PROFILE_COMMANDS, SNAPSHOT_COMMANDS
from quantchat.app.crash_recovery import anything_recovered
from quantchat.app.device_watch import DeviceReadings, DeviceWatch, MakeSampler, real_sampler
from quantchat.app.messages import ProfileChosen
from quantchat.app.screens.saved_list import SavedList
from quantchat.app.widgets.device_line import DeviceLine
from quantchat.app.widgets.text_layout import GAP, hints, join_fitting, quiet, untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document.figures import size
from quantchat.errors import UserError
from quantchat.text import neutralise, one_line

if TYPE_CHECKING:  # imported, and profiles and snapshots read, after the first frame
    from quantchat.app.screens.form import Form
    from quantchat.app.screens.progress import ProgressScreen
    from quantchat.checkpoints.provider import CheckpointProvider
    from quantchat.host.worker_process import StartWorker
    from quantchat.measuring.fit_here import OpeningNeeds
    from quantchat.measuring.memory_plan import DevicePlan, Fit
    from quantchat.profile import library
    from quantchat.profile.model import Profile
    from quantchat.system.sampler import DeviceSample

SAMPLE_EVERY_S = 2.0
_Result = TypeVar("_Result")

CHECK_S = 10.0
"""Longest time, in s, for reading the sizes of a profile's models; a network share may hang."""
_DEMO = "demo"
"""Name of the shipped profile that runs on any machine."""
_PROFILE_KEYS = (
    *((command.key, command.label) for command in (OPEN_PROFILE, *PROFILE_COMMANDS)),
    *(("F1", "help"), ("Tab", "snapshots"), ("^Q", "quit")),
)
_SNAPSHOT_KEYS = (
    *((command.key, command.label) for command in SNAPSHOT_COMMANDS),
    *(("F1", "help"), ("Tab", "profiles"), ("^Q", "quit")),
)

_MARKS: dict[Fit, tuple[str, str]] = {
    "fits": ("✓", "$success"),
    "tight": ("≈", "$warning"),
    "does not fit": ("✗", "$error"),
    "cannot run": ("✗", "$error"),
    "not known": ("?", "$quiet"),
}
"""Fit of a profile → the mark before its name, and the mark's colour."""
_NOT_CHECKED = (" ", "")


class StartScreen(Screen[None]):
    """Posts `ProfileChosen` when the user opens a profile; `SavedList` handles the snapshots."""

    BINDINGS: ClassVar[list[BindingType]] = [command.binding() for command in PROFILE_COMMANDS]
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

    def __init__(
        self,
        snapshots: Path | None = None,
        make_sampler: MakeSampler = real_sampler,
        *,
        provider: CheckpointProvider | None = None,
        start: StartWorker | None = None,
    ) -> None:
        """List the snapshots of the folder `snapshots`; None means the user's default folder.

        `provider` and `start` build checkpoints and start workers; None means the real ones.
        """
        super().__init__()
        self._provider, self._start = provider, start
        self._snapshots = snapshots
        self._make_sampler = make_sampler
        self._device_line = DeviceLine("")
        self._watch: DeviceWatch | None = None
        self._entries: list[library.Entry] = []
        self._opening_needs: dict[str, OpeningNeeds] = {}
        """Name of a profile → the memory and the downloads that opening it on this machine needs;
        filled by `_check`."""
        self._checking = False
        self._no_key_pressed = True
        """Whether the user has pressed no key yet, so that the highlight may move by itself."""

    def compose(self) -> ComposeResult:
        """Lay out the profiles with their descriptions, and the snapshots below."""
        yield self._device_line
        yield Static("Profiles", classes="title")
        with Horizontal(classes="part"):
            yield OptionList(id="profiles")
            yield Static(id="about")
        with Vertical(id="lower"):
            yield Static("Recent snapshots", classes="title")
            yield SavedList(self._snapshots)
        yield Static(id="hint")

    def on_mount(self) -> None:
        """Fill the lists after the first frame is drawn."""
        # Until the app has started, Textual draws nothing, but a screen's `call_after_refresh` runs
        # all the same. `App.call_later` waits until the app has started, so that the first frame
        # appears before profiles and snapshots are read.
        self.app.call_later(self.call_after_refresh, self._fill)

    def _fill(self) -> None:
        from quantchat.profile import library

        self._entries = library.entries()
        profiles = self.query_one("#profiles", OptionList)
        profiles.add_options(map(self._option, self._entries))
        profiles.highlighted = self._preselected()
        profiles.focus()
        self._list_snapshots()
        self._watch = DeviceWatch(self._measured, self._make_sampler)
        self._sample()
        self.set_interval(SAMPLE_EVERY_S, self._sample)
        self.run_worker(self._offer_recovered())

    async def _offer_recovered(self) -> None:
        if await anything_recovered(self._snapshots):
            from quantchat.app.screens.recovered import offer

            await offer(self, self._snapshots, self._list_snapshots)

    def _preselected(self) -> int | None:
        """Return the index of the profile to highlight at first.

        This is the user's first profile that may fit into this machine's memory, else the demo,
        else the first profile of the list; None if the list is empty.
        """
        from quantchat.profile.library import Origin

        def may_fit(entry: library.Entry) -> bool:
            needs = self._opening_needs.get(entry.name)
            return needs is None or needs.fit not in ("does not fit", "cannot run")

        entries = list(enumerate(self._entries))
        of_user = (n for n, entry in entries if entry.origin is not Origin.SHIPPED)
        demo = (n for n, entry in entries if entry.name == _DEMO)
        fallback = 0 if entries else None
        return next((n for n in of_user if may_fit(self._entries[n])), next(demo, fallback))

    def _list_snapshots(self) -> None:
        self.query_one(SavedList).fill()

    def on_unmount(self) -> None:
        """Close the sampler; the next screen has its own."""
        if self._watch is not None:
            self._watch.close()

    def on_key(self, event: Key) -> None:
        """From the first key on, do not move the highlight automatically any more."""
        del event
        self._no_key_pressed = False

    def on_descendant_focus(self) -> None:
        """Show the keys of the list that has the focus."""
        self._show_keys()

    def on_resize(self) -> None:
        """Show as many keys as fit."""
        self._show_keys()

    def _show_keys(self) -> None:
        keys = _SNAPSHOT_KEYS if isinstance(self.focused, SavedList) else _PROFILE_KEYS
        line = join_fitting((hints([key]) for key in keys), self.size.width - 2, GAP)
        self.query_one("#hint", Static).update(line)

    def _sample(self) -> None:
        if self._watch is not None:
            self._watch.request({})  # the machine only: no worker is running

    def _measured(self, measured: DeviceReadings) -> None:
        self._device_line.show(measured.device)
        if not self._checking:
            self._checking = True
            self.run_worker(self._check(measured.device), exit_on_error=False)

    async def _check(self, sample: DeviceSample) -> None:
        """Find out, for each profile, whether it fits into memory and what it would download."""
        from quantchat.measuring.fit_here import OpeningNeeds, opening_needs

        profiles = self.query_one("#profiles", OptionList)
        for place, entry in enumerate(self._entries):
            if entry.profile is None:
                continue
            look = partial(opening_needs, entry.profile, sample)
            try:
                needs = await to_daemon_thread(look, within_s=CHECK_S)
            except UserError as error:
                needs = OpeningNeeds(
                    fit="not known",
                    guessed=False,
                    devices=(),
                    unknown=(str(error),),
                    downloads=(),
                    to_quantize=(),
                )
            self._opening_needs[entry.name] = needs
            profiles.replace_option_prompt_at_index(place, self._option(entry).prompt)
            if profiles.highlighted == place:
                self._describe(place)
        if self._no_key_pressed:
            profiles.highlighted = self._preselected()

    @on(OptionList.OptionHighlighted, "#profiles")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._describe(event.option_index)

    def _describe(self, place: int) -> None:
        entry = self._entries[place]
        self.query_one("#about", Static).update(_about(entry, self._opening_needs.get(entry.name)))

    @on(OptionList.OptionSelected, "#profiles")
    def _open(self, event: OptionList.OptionSelected) -> None:
        del event  # the selected profile is the highlighted one
        if (profile := self._chosen_profile()) is not None:
            self.post_message(ProfileChosen(profile))

    # ------------------------------------------------------------ long tasks on a profile

    def action_pick(self) -> None:
        """Ask for the limits, then measure the highlighted profile's variants and pick one."""
        from quantchat.app.screens.pick import PickScreen
        from quantchat.app.screens.pick_form import PickForm

        self._ask_and_run(PickForm, PickScreen)

    def action_load_test(self) -> None:
        """Ask for the load levels, then measure the highlighted profile's variants at each."""
        from quantchat.app.screens.load_test import LoadTestScreen
        from quantchat.app.screens.load_test_form import LoadTestForm

        self._ask_and_run(LoadTestForm, LoadTestScreen)

    def _ask_and_run(
        self, form: Callable[[Profile], Form[_Result]], task: Callable[..., ProgressScreen]
    ) -> None:
        """Show `form` for the highlighted profile, then run `task` with the user's choices."""

        def begin(setup: _Result | None) -> None:
            if setup is not None:
                provider, start = self._provider_and_start()
                screen = task(setup, self._snapshots, provider=provider, start=start)
                self.app.push_screen(screen, lambda _: self._list_snapshots())

        if (profile := self._chosen_profile()) is not None:
            self.app.push_screen(form(profile), begin)

    def _chosen_profile(self) -> Profile | None:
        """Return the highlighted profile; if it is invalid, show why and return None."""
        place = self.query_one("#profiles", OptionList).highlighted
        if place is None:
            return None
        entry = self._entries[place]
        if entry.profile is None:
            self.notify(one_line(str(entry.error)), severity="error", timeout=15, markup=False)
        return entry.profile

    def _provider_and_start(self) -> tuple[CheckpointProvider, StartWorker]:
        """Return what builds checkpoints and what starts workers."""
        from quantchat.checkpoints.builder import CheckpointBuilder
        from quantchat.host.worker_process import start_worker

        return self._provider or CheckpointBuilder(), self._start or start_worker

    def _option(self, entry: library.Entry) -> Option:
        needs = self._opening_needs.get(entry.name)
        mark = Content.styled(*(_MARKS[needs.fit] if needs else _NOT_CHECKED)) + " "
        if entry.profile is None:
            return Option(mark + untrusted(entry.name) + Content.styled("  invalid", "$error"))
        return Option(mark + untrusted(entry.name, "bold") + quiet(f"  {entry.origin.value}"))


def _about(entry: library.Entry, needs: OpeningNeeds | None) -> Content:
    """Return name, description and variants of a profile, or the errors of an invalid one."""
    if entry.profile is None:
        mistakes = entry.error.lines if entry.error else ()
        return Content.styled(neutralise("\n\n".join(mistakes)), "$error")
    profile = entry.profile
    lines = [untrusted(profile.name, "bold"), Content(neutralise(profile.description)), Content()]
    if needs:
        lines += [*_fit_and_downloads(needs), Content()]
    for variant in profile.variants:
        lines.append(untrusted(variant.label, "$primary"))
        lines.append(quiet("  ") + untrusted(f"{variant.engine} · {variant.model}", "$quiet"))
    return Content("\n").join(lines)


def _fit_and_downloads(needs: OpeningNeeds) -> list[Content]:
    """Return whether the profile fits, what it downloads and what it quantizes, one line each."""
    about = "about " if needs.guessed else ""
    lines = [_fit(plan, about) for plan in needs.devices]
    lines += [untrusted(reason, "$quiet") for reason in needs.unknown]
    for model, count in needs.downloads:
        amount = "of unknown size" if count is None else f"{about}{count / 1e9:.1f} GB"
        lines.append(quiet("downloads ") + untrusted(f"{amount}: {model}"))
    if not needs.downloads:
        lines.append(quiet("downloads nothing"))
    if needs.to_quantize:
        lines.append(
            quiet("quantizes ")
            + untrusted(", ".join(needs.to_quantize))
            + quiet(" on this machine first")
        )
    return lines


def _fit(plan: DevicePlan, about: str) -> Content:
    mark, style = _MARKS[plan.fit]
    text = f"{mark} {plan.fit}"
    if plan.device.unusable:
        text += f": {plan.device.unusable}"
    elif plan.total is not None and plan.device.free is not None:
        # Variants that share several GPUs are always `tight`, because the sum of the free memory
        # says nothing about a single GPU. For them, the memory needed while loading is not the
        # reason.
        loading = plan.fit == "tight" and not plan.shares_several_gpus
        needed = f"{about}{size(plan.peak if loading else plan.total)}"
        when = " while loading" if loading else ""
        text += f": needs {needed}{when}; {plan.device.name} has {size(plan.device.free)} free"
    return untrusted(text, style)

"""The look of the screen: device line, readable colours, and no colours where they are off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.color import Color as RichColor
from rich.color import ColorSystem
from textual.color import Color
from textual.theme import Theme

from fakes.screen_reader import lines, see, see_gone, see_in, wait_until
from fakes.scripted_app import LEFT, SIZES, Setup
from fakes.scripted_machine import GPU, HOST
from quantchat.app import themes
from quantchat.app.widgets.device_line import machine, used_of_total
from quantchat.system.sampler import DeviceSample


def sample(*gpus: object) -> DeviceSample:
    return DeviceSample(0.0, HOST, list(gpus), "" if gpus else "no driver")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (100, "NVIDIA GeForce RTX 4090  VRAM 9.8 of 24.0 GiB  use 97 %  62 °C  311 of 450 W"),
        (61, "RTX 4090  9.8/24.0 GiB  97 %  62 °C  311 W"),
    ],
)
def test_a_gpu_has_name_memory_use_heat_and_power(width: int, expected: str) -> None:
    assert machine(sample(GPU), width).plain == expected


def test_what_a_gpu_does_not_tell_is_unknown() -> None:
    silent = replace(
        GPU, memory_used=None, utilisation=None, temperature_c=None, power_w=None, throttle=None
    )
    line = machine(sample(silent), 100).plain
    assert line == "NVIDIA GeForce RTX 4090  VRAM – of 24.0 GiB  use –  –  –"
    assert used_of_total(None, None) == "– of –"


def test_a_throttled_gpu_says_so() -> None:
    assert "throttled: power" in machine(sample(replace(GPU, throttle=["power"])), 120).plain


def test_several_gpus_stand_beside_each_other_as_far_as_they_fit() -> None:
    both = sample(GPU, replace(GPU, index=1, name="NVIDIA H100"))
    assert "0 RTX 4090" in machine(both, 120).plain and "1 NVIDIA" not in machine(both, 120).plain
    assert "1 H100  9.8/24.0 GiB" in machine(both, 120).plain
    assert "H100" not in machine(both, 60).plain


@pytest.mark.parametrize("width", [40, 61, 120])
def test_without_a_gpu_the_processor_and_its_memory_are_shown(width: int) -> None:
    line = machine(sample(), width)
    assert line.cell_length <= width
    assert "RAM 3.1 of 7.8 GiB" in line.plain or width < 45
    assert "no GPU" in line.plain
    if width > 100:
        assert line.plain.startswith("AMD EPYC 7B13 64-Core Processor")


@pytest.mark.parametrize("size", SIZES)
async def test_the_device_line_is_whole_at_each_size(setup: Setup, size: tuple[int, int]) -> None:
    setup.gpus = (GPU,)
    async with setup.running(size) as run:
        await see(run.pilot, "RTX 4090")
        line = lines(run.app)[0]
        assert "24.0 GiB" in line and "97 %" in line and "62 °C" in line and "311" in line
        assert "…" not in line


async def test_device_memory_is_called_vram_with_its_whole_ledger(setup: Setup) -> None:
    setup.gpus = (GPU,)
    for script in (setup.left, setup.right):
        script.device = "cuda:0"
    async with setup.running() as run:
        await run.ready()
        await see_in(run.pilot, 0, "VRAM 498 MiB weights 102 MiB KV 12.0 MiB")
        await see_in(run.pilot, 0, "other 8.0 MiB slack 20.0 MiB non-torch 356 MiB")
        await see(run.pilot, f"{LEFT} 113 MiB smaller (VRAM)")


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.1, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [c / 255 for c in Color.parse(colour).rgb]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", themes.THEMES, ids=lambda theme: theme.name)
def test_text_can_be_read_on_each_ground(theme: Theme) -> None:
    least = 7.0 if theme.name == "high contrast" else 4.5  # WCAG AAA and AA
    for ground in (theme.background, theme.surface, theme.panel):
        for text in (
            theme.foreground,
            theme.primary,
            theme.success,
            theme.warning,
            theme.error,
            *(theme.variables[name] for name in ("side-left", "side-right", "quiet")),
        ):
            assert text and ground
            assert contrast(text, ground) >= least, (text, ground)


@pytest.mark.parametrize("theme", themes.THEMES, ids=lambda theme: theme.name)
def test_grounds_stay_grey_where_a_terminal_has_256_colours(theme: Theme) -> None:
    # SSH passes no COLORTERM on, so that most far terminals count as such.
    grounds = [theme.background, theme.surface, theme.panel, theme.variables["rule"]]
    shown = []
    for ground in grounds:
        eight_bit = RichColor.parse(str(ground)).downgrade(ColorSystem.EIGHT_BIT)
        red, green, blue = eight_bit.get_truecolor()
        assert red == green == blue, ground
        shown.append(red)
    assert len(set(shown)) == len(set(grounds))


SIXTEEN = themes.for_terminal("standard")


@pytest.mark.parametrize("theme", SIXTEEN, ids=lambda theme: theme.name)
def test_with_16_colours_the_sides_and_secondary_text_can_be_told_apart(theme: Theme) -> None:
    def shown(colour: str | None) -> int | None:
        return RichColor.parse(str(colour)).downgrade(ColorSystem.STANDARD).number

    sides = [shown(theme.variables[name]) for name in ("side-left", "side-right")]
    others = [shown(one) for one in (theme.success, theme.error, theme.foreground)]
    assert len({*sides, *others, shown(theme.variables["quiet"]), shown(theme.background)}) >= 6
    for colour in (*sides, *others):
        assert colour != shown(theme.background)


@pytest.mark.parametrize("system", ["standard", "256", "truecolor"])
async def test_the_screen_has_the_colours_that_its_terminal_can_show(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("textual.constants.COLOR_SYSTEM", system)
    async with setup.running() as run:
        expected = themes.for_terminal(system)[0]
        assert run.app.current_theme == expected
        assert (expected in SIXTEEN) == (system == "standard")


async def test_no_color_is_honoured(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    setup.left.answer = lambda request: "# Title\n\n`code` [link](x)\n\n```python\nx = 1\n```"
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "x = 1")
        for strip in run.app.screen._compositor.render_strips():
            for segment in strip:
                style = segment.style
                for colour in (style.color, style.bgcolor) if style else ():
                    if colour is not None and colour.triplet is not None:
                        red, green, blue = colour.triplet
                        assert red == green == blue, segment


async def test_both_columns_have_one_scale(setup: Setup) -> None:
    setup.left.token_ms, setup.right.token_ms = 10.0, 40.0
    text = " ".join(["word"] * 200)
    setup.left.answer = setup.right.answer = lambda request: text
    async with setup.running((120, 40)) as run:
        await run.ready()
        await run.answered()
        left, right = run.screen.columns.pair

        def strip(index: int) -> str:
            middle = 60
            rows = [line[:middle] if index == 0 else line[middle:] for line in lines(run.app)]
            (first,) = [row for row in rows if "tok/s" in row and row.rstrip().endswith("100")]
            return first

        await wait_until(
            run.pilot, lambda: "\n".join(lines(run.app)).count("▏100") == 2, "the scale of both"
        )
        # 100 tok/s fill the two lines of the strip, 25 tok/s half of the lower one.
        assert "█" in strip(0) and "█" not in strip(1)
        assert left.panel.size == right.panel.size


@pytest.mark.parametrize("size", [(80, 17), (40, 11), (40, 10), (30, 8)])
async def test_on_a_low_terminal_the_answers_have_the_room(
    setup: Setup, size: tuple[int, int]
) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "p50")
        await run.pilot.resize_terminal(*size)
        await see_gone(run.pilot, "p50")
        (column, *_) = run.screen.columns.visible_columns
        await wait_until(run.pilot, lambda: column.transcript.size.height >= 2, "room")
        await run.pilot.resize_terminal(80, 24)
        await see(run.pilot, "p50")
        await see(run.pilot, "same answer")

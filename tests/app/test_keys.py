"""Each key does what the key line, the help and the palette say."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual._compositor import LayoutUpdate
from textual.command import CommandPalette
from textual.widgets import OptionList, TextArea

from fakes.screen_reader import column, lines, see, see_gone, see_in, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, THIRD, Running, Setup
from quantchat.app.commands import COMMANDS, Command
from quantchat.app.palette import CommandProvider
from quantchat.app.screens.log import LogScreen
from quantchat.wire.messages import Generate, Stop


def generated(run: Running) -> list[Generate]:
    return [c for c in run.left.commands if isinstance(c, Generate)]


async def test_each_command_has_a_key_an_action_and_a_place_in_the_palette(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        named = {one.title for one in run.app.get_system_commands(run.screen)}
        for one in COMMANDS:
            node = run.screen.prompt if one.in_prompt else run.screen
            if one.group == "Program":
                assert hasattr(run.app, f"action_{one.id}")
            elif one.id != "send":
                assert hasattr(node, f"action_{one.id}"), one.id
            if not one.in_prompt and one.id != "command_palette":
                assert f"{one.label[0].upper()}{one.label[1:]} ({one.key})" in named
        assert "Agreement (^^)" in named
        keys = [key for one in COMMANDS for key in one.keys.split(",")]
        assert len(keys) == len(set(keys))


def test_no_key_is_one_that_text_is_edited_with() -> None:
    editing = {
        key
        for binding in TextArea.BINDINGS
        if not isinstance(binding, tuple)
        for key in binding.key.split(",")
    }
    ours = {key for one in COMMANDS for key in one.keys.split(",")}
    # The arrows and pages are ours only where they would have nothing to do; F6, F7 select.
    assert editing & ours == {"up", "down", "pageup", "pagedown", "f6", "f7"}
    # What tmux and GNU screen take for themselves, and what terminals take for control flow.
    assert not ours & {"ctrl+b", "ctrl+a", "ctrl+i", "ctrl+m", "ctrl+h", "ctrl+left_square_bracket"}


async def test_escape_asks_both_workers_to_stop(setup: Setup) -> None:
    setup.left.holds_after = setup.right.holds_after = 1
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see(run.pilot, "▶ answering")
        await run.pilot.press("escape")
        await run.settled()
        for script in (run.left, run.right):
            assert [c for c in script.commands if isinstance(c, Stop)] == [Stop(1)]
        # A second Esc, with nothing to stop, does nothing at all.
        await run.pilot.press("escape")
        assert run.app.is_running and run.app.focused is run.screen.prompt


async def test_order_is_for_the_next_prompt(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await see(run.pilot, "^T together")
        await run.pilot.press("ctrl+t")
        await see(run.pilot, "^T one at a time")
        await run.answered()
        await see(run.pilot, "faster · one at a time, single answer")
        await run.pilot.press("ctrl+t")
        assert run.comparison.order == "together"
        await see(run.pilot, "faster · one at a time, single answer")


async def test_maximise_goes_round(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await see_in(run.pilot, 0, "TorchLinear")
        await see_in(run.pilot, 1, "Linear4bit")
        await run.pilot.press("f3")
        await see_gone(run.pilot, "Linear4bit")
        await see_in(run.pilot, 0, "TorchLinear")
        await run.pilot.press("f3")
        await see_gone(run.pilot, "TorchLinear")
        await see_in(run.pilot, 0, "Linear4bit")
        await run.pilot.press("f3")
        await see_in(run.pilot, 0, "TorchLinear")
        await see_in(run.pilot, 1, "Linear4bit")


async def test_a_narrow_terminal_has_tabs(setup: Setup) -> None:
    async with setup.running((66, 24)) as run:
        await run.ready()
        assert LEFT in lines(run.app)[1] and RIGHT in lines(run.app)[1]
        await see(run.pilot, "TorchLinear 4-bit")
        assert "Linear4bit" not in text(run.app)
        await run.pilot.press("f3")
        await see(run.pilot, "Linear4bit")
        await see_gone(run.pilot, "TorchLinear")
        await run.pilot.resize_terminal(120, 40)
        await see(run.pilot, "TorchLinear")


async def test_swap_lets_the_sides_change_places_in_the_middle_of_an_answer(setup: Setup) -> None:
    setup.left.holds_after = 3
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "The capital of")
        await run.pilot.press("f10")
        await see_in(run.pilot, 0, RIGHT)
        await see_in(run.pilot, 1, LEFT, "TorchLinear", "The capital of")
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 1, "The capital of France is Paris.")


async def test_another_pair_can_be_chosen(setup: Setup) -> None:
    pair_alone = setup.profile.run.model_copy(update={"keep_loaded": 2})
    setup.profile = setup.profile.model_copy(update={"run": pair_alone})
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+o")
        await see(run.pilot, "Show which two variants")
        await run.pilot.press("down", "enter")  # the left list: the same as the right
        await see(run.pilot, "Choose two different variants")
        await run.pilot.press("down", "enter")
        await see_in(run.pilot, 0, THIRD)
        await run.ready()
        await wait_until(run.pilot, lambda: run.left.closed, "the first worker ended")
        await see_in(run.pilot, 0, "no answer: the variant was not shown · Alt+M asks now")
        await see_in(run.pilot, 1, RIGHT, "The capital of France is Paris.")


async def test_escape_leaves_the_pair_as_it_is(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+o")
        await wait_until(run.pilot, lambda: run.app.screen.query(OptionList))
        await run.pilot.press("right", "down", "escape")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)
        assert run.comparison.pair == (0, 1)


async def test_new_chat_forgets(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where is Paris?")
        await run.pilot.press("ctrl+n")
        await see_gone(run.pilot, "Where is Paris?")
        await run.answered("And Rome?")
        assert [m.content for m in generated(run)[-1].messages] == ["And Rome?"]


async def test_regenerate_asks_the_last_prompt_again(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+r")
        await see(run.pilot, "there is no answer to regenerate yet")
        await run.answered("Where is Paris?")
        run.left.answer = lambda request: "In *France*."
        await run.pilot.press("ctrl+r")
        await see_in(run.pilot, 0, "In France.")
        assert len(run.comparison.conversation.turns) == 1
        assert [m.content for m in generated(run)[-1].messages] == ["Where is Paris?"]


async def test_edit_sends_in_place_of_the_last_turn(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where is Paris?")
        await run.pilot.press("f4")
        assert run.screen.prompt.text == "Where is Paris?"
        await run.pilot.press("backspace", "!", "enter")
        await see_in(run.pilot, 0, "Where is Paris!")
        assert [turn.prompt for turn in run.comparison.conversation.turns] == ["Where is Paris!"]
        assert run.screen.prompt.text == ""


async def test_escape_leaves_editing(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where is Paris?")
        await run.pilot.press(*"draft", "f4", "f4")
        assert run.screen.prompt.text == "Where is Paris?"
        await run.pilot.press("escape")
        assert run.screen.prompt.text == "draft"
        await run.answered("And Rome?")
        prompts = [turn.prompt for turn in run.comparison.conversation.turns]
        assert prompts == ["Where is Paris?", "And Rome?"]


async def test_a_full_log_can_be_read(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        log = run.comparison.sides[1].log
        assert log is not None
        log.write_text("\x1b[32mgreen\x1b[0m 10 %\r 20 %\r\n\x1b]0;title\x07[b]not bold[/b]\n")
        await run.pilot.press("alt+l")
        await see(run.pilot, f"loading {LEFT}")
        await run.pilot.press("tab")
        await see(run.pilot, "␛]0;title␇[b]not bold[/b]")
        assert "green 10 %" in text(run.app)
        with log.open("a") as file:
            file.write("a line that came later\n")
        await see(run.pilot, "a line that came later")
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: not isinstance(run.app.screen, LogScreen))


async def test_themes_go_round(setup: Setup) -> None:
    async with setup.running() as run:
        seen = []
        for _ in range(4):
            seen.append(run.app.theme)
            await run.pilot.press("f11")
        assert seen == ["dark", "light", "high contrast", "dark"]


async def test_help_names_each_key(setup: Setup) -> None:
    async with setup.running((200, 80)) as run:  # as high as it takes to see them all
        await run.pilot.press("f1")
        await see(run.pilot, "Show the keys and the terms")

        def named(one: Command) -> bool:
            return any(f"  {one.key} " in x and one.help[:40] in x for x in lines(run.app))

        await wait_until(run.pilot, lambda: all(map(named, COMMANDS)), "a row for each")
        await run.pilot.press("f1")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen)


async def test_a_click_on_the_key_line_does_what_the_key_does(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        line = lines(run.app)[-1]
        await run.pilot.click(offset=(line.index("^T") + 1, run.app.size.height - 1))
        await see(run.pilot, "^T one at a time")


async def test_the_palette_runs_commands(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+p")
        await see(run.pilot, "Search for commands")
        await run.pilot.press(*"swap")
        await see(run.pilot, "Swap (F10)")
        await run.pilot.press("down", "enter")
        await see_in(run.pilot, 0, RIGHT)


async def test_turns_may_go_while_they_are_being_drawn(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        for key in ("ctrl+r", "ctrl+n", "ctrl+r", "f8", "f10", "ctrl+n"):
            await run.ask("Where is Paris?")
            await wait_until(run.pilot, lambda: not run.comparison.busy)
            await run.pilot.press(key)
            await wait_until(run.pilot, lambda: not run.comparison.busy)
        await see_gone(run.pilot, "Where is Paris?")


@pytest.mark.parametrize("key", ["ctrl+r", "ctrl+n", "f8", "f4", "f5", "f6", "f7", "f9", "ctrl+s"])
async def test_keys_do_no_harm_while_nothing_is_loaded(setup: Setup, key: str) -> None:
    async with setup.running() as run:
        await run.pilot.press(key)
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "The capital of France is Paris.")


@pytest.mark.parametrize("key", ["ctrl+r", "ctrl+n", "f8"])
async def test_what_would_break_an_answer_off_is_refused(setup: Setup, key: str) -> None:
    setup.left.holds_after = 2
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        await see_in(run.pilot, 0, "The capital")
        await run.pilot.press(key)
        await see(run.pilot, "an answer is streaming; stop it first")
        run.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "The capital of France is Paris.")


async def test_prompt_waits_in_the_box_until_it_can_be_sent(setup: Setup, tmp_path: Path) -> None:
    setup.left.holds_after = setup.right.holds_after = 2
    async with setup.running() as run:
        await run.ready()
        await run.ask("one")
        run.screen.prompt.set_text("two")
        await run.pilot.press("enter")
        await see(run.pilot, "an answer is streaming; stop it first")
        assert run.screen.prompt.text == "two"
        run.left.gate.set()
        run.right.gate.set()
        await run.settled()
        await wait_until(run.pilot, lambda: not run.comparison.busy)
        await run.pilot.press("enter")
        await wait_until(run.pilot, lambda: len(run.comparison.conversation.turns) == 2)
        assert column(run.app, 0)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("vote", "Vote blind"),
        ("regenerate", "Regenerate"),
        ("retry", "Regenerate"),
        ("temperature", "Settings"),
        ("snapshot", "Save ("),
        ("export", "Export chat"),
        ("dark", "Theme"),
        ("perplexity", "Cross-perplexity"),
        ("benchmark", "Measure"),
        ("repaint", "Redraw"),
        ("unlikely tokens", "Cross-perplexity"),
        ("exit", "Quit"),
    ],
)
async def test_the_palette_finds_by_name_help_and_synonym(
    setup: Setup, query: str, found: str
) -> None:
    async with setup.running() as run:
        await run.ready()
        provider = CommandProvider(run.screen)
        hits = [hit async for hit in provider.search(query)]
        best = max(hits, key=lambda hit: hit.score)
        assert str(best.text).startswith(found), [(hit.score, str(hit.text)) for hit in hits]


async def test_the_palette_runs_what_it_found(setup: Setup) -> None:
    async with setup.running((80, 24)) as run:
        await run.ready()
        await run.pilot.press("ctrl+p")
        await wait_until(run.pilot, lambda: isinstance(run.app.screen, CommandPalette), "palette")
        await run.pilot.press(*"temperature")
        await see(run.pilot, "Settings (F2)")
        await run.pilot.press("enter")
        await see(run.pilot, "Settings from the next prompt on")


async def test_redraw_sends_the_whole_screen_again(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        drawn = []
        display = run.app._display
        run.app._display = lambda screen, what: (drawn.append(what), display(screen, what))  # type: ignore[assignment,func-returns-value]
        await run.pilot.press("ctrl+l")
        await wait_until(run.pilot, lambda: any(isinstance(w, LayoutUpdate) for w in drawn), "all")
        assert run.app.screen is run.screen

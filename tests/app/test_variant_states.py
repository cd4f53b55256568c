"""The screen shows every state of a variant and of an answer, at three sizes where these differ."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fakes.screen_reader import column, lines, see, see_gone, see_in, text, wait_until
from fakes.scripted_app import LEFT, RIGHT, SIZES, Setup, profile
from fakes.scripted_worker import MIB, model_info
from quantchat.profile.model import Profile
from quantchat.session.live_variant import State
from quantchat.wire.messages import Failed, Progress

each_size = pytest.mark.parametrize("size", SIZES)

Size = tuple[int, int]


@each_size
async def test_stages_show_their_progress_while_the_other_side_chats(
    setup: Setup, size: Size
) -> None:
    setup.left.building = [
        Progress("fetching the wheel", 93_000_000, 93_000_000),
        Progress("quantizing layer", 7, 30, "down_proj"),
    ]
    setup.left.building_gate = asyncio.Event()
    async with setup.running(size) as run:
        await see(run.pilot, "◌ preparing")
        await see(run.pilot, "● ready")
        await run.ask()
        await see_in(
            run.pilot,
            0,
            "✓ fetching the wheel",
            "quantizing layer 7 of 30",
            "23 % down_proj",
            "queued until the variant is ready · Esc",
        )
        await see_in(run.pilot, 1, "The capital of France is Paris.")
        setup.left.building_gate.set()
        await run.ready()
        await see_gone(run.pilot, "quantizing layer")
        await see_in(run.pilot, 0, "The capital of France is Paris.")


async def test_loading_says_what_the_worker_does(setup: Setup) -> None:
    setup.right.loading = [Progress("importing torch"), Progress("loading weights", 1, 3)]
    setup.right.loading_gate = asyncio.Event()
    async with setup.running() as run:
        await see_in(
            run.pilot, 1, "loading weights 1 of 3", "✓ importing torch", "to load: bitsandbytes"
        )
        setup.right.loading_gate.set()
        await run.ready()


@each_size
async def test_a_slow_kernel_is_loud(setup: Setup, size: Size) -> None:
    told = replace(model_info("TritonV2Linear"), slow_kernel="it unpacks (a cure)")
    setup.left.model_info = told
    async with setup.running(size) as run:
        await run.ready()
        await see_in(run.pilot, 0, "SLOW KERNEL T", "SLOW KERNEL: it unpacks (a cure)")


@each_size
async def test_ready_says_what_really_runs(setup: Setup, size: Size) -> None:
    setup.right.note = "Its base was dequantized from Q4_1."
    setup.right.weights = 100 * MIB
    async with setup.running(size) as run:
        await run.ready()
        await see_in(run.pilot, 0, LEFT, "TorchLinear 4-bit", "bf16 · cpu")
        await see_in(run.pilot, 1, RIGHT, "Linear4bit", "bf16 · cpu", "dequantized from Q4_1")
        await see_in(run.pilot, 0, "decode mode: own loop")
        # Nothing was measured yet: unknown, and not 0.
        await see_in(run.pilot, 0, "– now – avg", "TTFT –", "p50 – p95 – p99 –")
        await see_in(run.pilot, 0, "RAM 498 MiB weights 102 MiB")
        await see_in(run.pilot, 1, "RAM 611 MiB weights 100 MiB")
        await see(run.pilot, "no GPU")
        # What is resident differs by 113 MiB the other way; that is no property of a variant.
        await see(run.pilot, f"{RIGHT} 2.0 MiB smaller (weights)")
        assert "dequantized" not in column(run.app, 0)


@each_size
async def test_answers_stream_with_their_figures(setup: Setup, size: Size) -> None:
    setup.left.holds_after = setup.right.holds_after = 4
    async with setup.running(size) as run:
        await run.ready()
        await run.ask("Where is Paris?")
        await see(run.pilot, "▶ answering")
        for side, now in ((0, "50.0 now"), (1, "33.3 now")):
            await see_in(
                run.pilot,
                side,
                now,
                "Where is Paris? The capital of France",
                "TTFT 150 ms",
                "together",
            )
            assert "Paris." not in column(run.app, side)
        setup.left.gate.set()
        setup.right.gate.set()
        await run.settled()
        await see(run.pilot, "– now 50.0 avg")
        await see(run.pilot, "no ratio: too few tokens")
        await see(run.pilot, "same answer")


async def test_a_difference_that_no_digit_shows_is_none(setup: Setup) -> None:
    setup.left.token_ms, setup.right.token_ms = 20.0, 20.05
    setup.left.answer = setup.right.answer = lambda request: "word " * 20
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        how = "together (contended), single answer"
        await see(run.pilot, f"{LEFT} as fast as the other · {how}")
        assert "× faster" not in text(run.app)


async def test_the_ratio_is_that_of_the_speeds_in_the_columns(setup: Setup) -> None:
    setup.left.answer = setup.right.answer = lambda request: "word " * 40
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "50.0 tok/s")
        await see_in(run.pilot, 1, "33.3 tok/s")
        await see(run.pilot, f"{LEFT} 1.50× faster · together")
        # The right one goes on alone, which is no comparison.
        run.left.answer = lambda request: "word " * 20
        run.right.answer = lambda request: "word " * 200
        await run.answered()
        await see(run.pilot, "no ratio: too few tokens")


async def test_a_worker_that_hangs_is_told_of_and_ended_by_a_key(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        left, _ = run.comparison.sides
        left._last_message_s -= 1000
        await see_in(run.pilot, 0, "✖ no response", "The worker does not respond")
        await see_in(run.pilot, 0, "has not sent a message", "F9 reloads it")
        assert "no response" not in column(run.app, 1)
        await run.pilot.press("f9")
        await wait_until(run.pilot, lambda: setup.left.lives == 2, "another worker")
        await run.ready()
        await see_gone(run.pilot, "does not respond")
        assert setup.right.lives == 1


async def test_stop_keeps_what_was_said(setup: Setup) -> None:
    setup.left.holds_after = setup.right.holds_after = 2
    async with setup.running() as run:
        await run.ready()
        await run.ask()
        for side in (0, 1):
            await see_in(run.pilot, side, "The capital")
        await run.pilot.press("escape")
        await run.settled()
        for side in (0, 1):
            await see_in(run.pilot, side, "The capital ■ stopped 2 tokens")
        assert run.app.focused is run.screen.prompt


@each_size
async def test_out_of_memory_says_what_to_do_and_the_other_goes_on(
    setup: Setup, size: Size
) -> None:
    setup.left.loading_fails = Failed(
        "out_of_memory", "no room for the weights", "close what else runs", -1, 5 * 2**30, 3 * 2**30
    )
    async with setup.running(size) as run:
        await see(run.pilot, "✖ failed")
        await see_in(
            run.pilot,
            0,
            "Out of memory no room for the weights needed 5.0 GiB, free 3.0 GiB",
            "try: close what else runs",
            "F9 reloads it",
        )
        await wait_until(run.pilot, lambda: lines(run.app)[-1].lstrip().startswith("F9 reload"))
        await run.answered()
        await see_in(run.pilot, 1, "The capital of France is Paris.")
        setup.left.loading_fails = None
        await run.pilot.press("f9")
        await run.ready()
        await see_gone(run.pilot, "Out of memory")


async def test_a_worker_that_cannot_be_started_says_why(setup: Setup) -> None:
    setup.left.start_fails = PermissionError(13, "Permission denied", "/logs/left.log")
    async with setup.running() as run:
        await see(run.pilot, "✖ failed")
        await see_in(run.pilot, 0, "Permission denied")
        setup.left.start_fails = None
        await run.pilot.press("f9")
        await run.ready()


async def test_a_worker_that_dies_leaves_the_other_alone(setup: Setup) -> None:
    setup.left.dies_after = 3
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await see(run.pilot, "✖ failed")
        await see_in(run.pilot, 0, "(signal 9)")
        await run.pilot.press("pageup")
        await see_in(run.pilot, 0, "■ interrupted: The worker ended unexpectedly", "The capital of")
        await see_in(run.pilot, 1, "The capital of France is Paris.")
        assert run.comparison.sides[1].state is State.READY


@each_size
async def test_a_full_context_shows_the_way_on(setup: Setup, size: Size) -> None:
    setup.left.answer_fails = Failed("context_full", "8200 tokens do not fit into 8192", "shorten")
    setup.right.reason = "context"
    async with setup.running(size) as run:
        await run.ready()
        await run.answered()
        await see_in(run.pilot, 0, "The context is full 8200 tokens do not fit into 8192")
        await see_in(run.pilot, 0, "F8 removes the oldest turn")
        await see_in(run.pilot, 1, "■ cut off: the context is full F8 removes the oldest turn")
        await wait_until(run.pilot, lambda: lines(run.app)[-1].lstrip().startswith("F8"))
        setup.left.answer_fails, setup.right.reason = None, "eos"
        await run.pilot.press("f8")
        await wait_until(run.pilot, lambda: not run.comparison.conversation.turns)
        await run.answered("And now?")
        await see_in(run.pilot, 0, "The capital of France is Paris.")
        await see_gone(run.pilot, "context is full")


@each_size
async def test_a_base_model_is_said_to_continue_plain_text(setup: Setup, size: Size) -> None:
    setup.left.model_info = model_info(chat_template=False)
    async with setup.running(size) as run:
        await run.ready()
        await see_in(run.pilot, 0, "continues the prompt as plain text")
        assert "continues" not in column(run.app, 1)


@each_size
async def test_columns_are_equal_and_nothing_is_cut(setup: Setup, size: Size) -> None:
    async with setup.running(size) as run:
        await run.ready()
        left, right = run.screen.columns.pair
        assert left.size == right.size
        assert (run.app.size.width, run.app.size.height) == size
        for line in lines(run.app):
            assert len(line) <= size[0]
        # The key line holds whole entries.
        assert lines(run.app)[-1].rstrip()[-1] != "…"


async def test_a_repeatable_profile_may_begin_in_turn(setup: Setup) -> None:
    setup.profile = profile(run={"order": "in-turn"})
    async with setup.running() as run:
        await run.ready()
        await see(run.pilot, "^T one at a time")
        await run.answered()
        for side in (0, 1):
            await see_in(run.pilot, side, "one at a time")
            assert "contended" not in column(run.app, side)
        await see(run.pilot, "faster · one at a time, single answer")


@each_size
async def test_what_could_run_any_code_shouts_in_its_column(setup: Setup, size: Size) -> None:
    body = setup.profile.model_dump()
    body["variants"][1] |= {"trust_remote_code": True, "allow_pickle": True}
    setup.profile = Profile.model_validate(body)
    async with setup.running(size) as run:
        await run.ready()
        await see_in(run.pilot, 1, "⚠ runs the model's own code")
        assert "⚠" not in column(run.app, 0)


async def test_beside_a_warning_dtype_and_device_stay_visible(setup: Setup) -> None:
    body = setup.profile.model_dump()
    body["variants"][1] |= {"trust_remote_code": True}
    setup.profile = Profile.model_validate(body)
    async with setup.running((120, 40)) as run:
        await run.ready()
        await see_in(run.pilot, 1, "⚠ runs the model's own code", "bf16 · cpu")

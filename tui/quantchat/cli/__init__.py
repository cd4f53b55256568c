"""The command line.

Each command imports the modules that it needs when it runs, so `--help` imports only click and is
fast.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import click.shell_completion

import quantchat
from quantchat.cli.lazy import Lazy, LazyGroup
from quantchat.console.ending import like_ctrl_c
from quantchat.console.options import (
    COMPLETING,
    LOW_BANDWIDTH,
    low_bandwidth_of,
    low_bandwidth_option,
)
from quantchat.console.streams import neutral_output, open_closed_streams
from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.profile.model import Profile

BAD_INPUT = UserError.status
"""Exit status for bad input; 1 means that a check or a model failed."""

_COMMANDS = {
    "profiles": Lazy("quantchat.cli.profiles:profiles", "List, show, check or create profiles."),
    "run": Lazy(
        "quantchat.features.measure.cli:run", "Measure two variants in rounds, without the screen."
    ),
    "plan": Lazy(
        "quantchat.features.memory_plan.cli:plan", "Estimate the memory that variants need."
    ),
    "methods": Lazy(
        "quantchat.features.methods.cli:methods",
        "List the quantization methods and what each needs.",
    ),
    "doctor": Lazy(
        "quantchat.features.doctor.cli:doctor", "Find what does not work here, and how to fix it."
    ),
    "score": Lazy(
        "quantchat.features.score.cli:score", "Measure perplexity and KLD of variants on a text."
    ),
    "eval": Lazy(
        "quantchat.features.tasks.cli:evaluate", "Measure the accuracy of variants on tasks."
    ),
    "pick": Lazy("quantchat.cli.pick:pick", "Measure many variants and recommend one."),
    "load": Lazy(
        "quantchat.features.load_test.cli:load", "Measure variants with many requests at once."
    ),
    "compare": Lazy(
        "quantchat.cli.compare:compare", "Compare snapshots; fail on a condition that you set."
    ),
    "rerun": Lazy(
        "quantchat.features.measure.rerun_cli:rerun", "Repeat the measurement of a snapshot."
    ),
    "vote": Lazy("quantchat.cli.vote:vote", "Vote blind on which variant answers better."),
    "agreement": Lazy(
        "quantchat.features.agreement.cli:agreement",
        "Show how early two answers of one variant to the same prompt differ.",
    ),
    "snapshots": Lazy("quantchat.cli.snapshots:snapshots", "List, show or remove saved snapshots."),
    "report": Lazy("quantchat.cli.report:report", "Write snapshots as HTML, Markdown or CSV."),
    "quantize": Lazy(
        "quantchat.features.quantize.cli:quantize", "Make a quantized checkpoint of a model."
    ),
    "env": Lazy("quantchat.cli.env:env", "Make Python environments with other library versions."),
    "cache": Lazy("quantchat.cli.cache:cache", "List, verify or remove checkpoints made here."),
    "completion": Lazy(
        "quantchat.cli.completion:completion",
        "Make the shell complete commands, options and profiles.",
    ),
    "schema": Lazy("quantchat.cli.schema:schema", "Print the JSON Schema of a file format."),
}

_OLD_NAMES = {"self-check": "agreement"}
"""New name of each renamed command, by its old name. Old names still work, but the help does not
list them."""

_snapshots_option = click.option(
    "--snapshots",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save snapshots in this folder.",
)


class _Root(LazyGroup):
    """The root command: a first argument that is no command is the profile or model to open."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        args = [_OLD_NAMES.get(args[0], args[0]), *args[1:]]
        if args[0] in self.lazy:
            return super().resolve_command(ctx, args)
        return "open", _open, args

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the options that may follow a model's name, and the commands."""
        own = {param.name for param in self.params}
        records = [
            record
            for param in _open.params
            if isinstance(param, click.Option) and param.name not in own
            if (record := param.get_help_record(ctx))
        ]
        with formatter.section("Options after MODEL"):
            formatter.write_dl(records)
        super().format_options(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and flush its output, so that an output error fails the command."""
        status = super().invoke(ctx)
        sys.stdout.flush()
        return status

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete commands, options and the names of profiles."""
        from quantchat.profile import library

        # The shell prints completions as they are, so leave out names with control characters.
        names = (name for name in library.names() if one_line(name) == name)
        known = [name for name in names if name.startswith(incomplete)]
        return [
            *super().shell_complete(ctx, incomplete),
            *map(click.shell_completion.CompletionItem, known),
        ]


class _Open(click.Command):
    """Opens the screen; its help is the help of the root command."""

    def get_help(self, ctx: click.Context) -> str:
        return ctx.find_root().get_help()


@click.group(
    cls=_Root,
    lazy=_COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[PROFILE | MODEL... | COMMAND]",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--continue",
    "saved",
    metavar="SNAPSHOT",
    help="Continue the chat of a saved or recovered snapshot, e.g. latest.",
)
@click.version_option(quantchat.__version__, message="%(prog)s %(version)s")
@_snapshots_option
@low_bandwidth_option
@click.pass_context
def root(
    ctx: click.Context, saved: str | None, snapshots: Path | None, low_bandwidth: bool | None
) -> int | None:
    """Compare two quantizations of a language model side by side in the terminal.

    PROFILE is the name of a saved comparison or the path of its TOML file. Without arguments,
    quantchat lists the available profiles and the recent snapshots.

    MODEL is a folder, org/name on the Hugging Face hub, a GGUF file, or the address of a server
    (http://…/v1). If you name one model, its GPTQ 4-bit and NF4 quantizations are compared. If you
    name several, they are compared as they are.
    """
    ctx.obj = snapshots
    ctx.meta[LOW_BANDWIDTH] = low_bandwidth
    if ctx.invoked_subcommand:
        if saved is not None:
            raise click.UsageError(
                "--continue opens the profile of the snapshot: give no command with it"
            )
        return None
    if saved is not None:
        return _continue(saved, snapshots, low_bandwidth)
    return _run(None, snapshots, low_bandwidth)


def _continue(name: str, snapshots: Path | None, low_bandwidth: bool | None) -> int:
    """Open the screen with the chat of the snapshot `name`."""
    from quantchat import paths
    from quantchat.features.measure.rerun import chat_of
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot

    file = find_snapshot(snapshots or paths.snapshots_dir(), name)
    chat = store.load(file)
    same = chat_of(chat, where=str(file))
    if same.needs_trust:
        for line in same.needs_trust:
            click.echo(one_line(line), err=True)
        click.confirm("Open these variants with the snapshot's settings?", abort=True, err=True)
    return _run(lambda: same.profile, snapshots, low_bandwidth, chat=chat, pair=same.pair)


@click.command(cls=_Open)
@click.argument("words", metavar="PROFILE | MODEL...", nargs=-1, required=True)
@click.option(
    "--with",
    "methods",
    metavar="METHOD,...",
    default="",
    help="Methods with which an unquantized model is loaded, e.g. nf4,gptq,bf16. `quantchat "
    "methods` lists them.",
)
@click.option("--gptq", metavar="MODEL", help="Use this GPTQ checkpoint instead of making one.")
@click.option(
    "--save-profile",
    "save",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the comparison as a profile.",
)
@click.option("--yes", is_flag=True, help="Make a GPTQ checkpoint here without asking.")
@_snapshots_option
@low_bandwidth_option
@click.pass_context
def _open(
    ctx: click.Context,
    words: tuple[str, ...],
    methods: str,
    gptq: str | None,
    save: Path | None,
    yes: bool,
    snapshots: Path | None,
    low_bandwidth: bool | None,
) -> int:
    """Open the comparison of a profile, or of models given by name."""

    def load() -> Profile:
        from quantchat.console import opening

        return opening.profile_of(words, methods, gptq, save=save, yes=yes, others=(*_COMMANDS,))

    return _run(load, snapshots or ctx.obj, low_bandwidth_of(ctx, low_bandwidth))


def _run(
    load: Callable[[], Profile] | None,
    snapshots: Path | None,
    low_bandwidth: bool | None,
    **more: Any,
) -> int:
    from quantchat.app import gc_tuning, run

    with gc_tuning.no_collection_while_importing():
        profile = load() if load else None
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UserError(
                "the screen needs a terminal on standard input and standard output",
                hint="to measure without a screen, use `quantchat run`",
            )
        return run(profile, snapshots=snapshots, low_bandwidth=low_bandwidth, **more)


def main(args: Sequence[str] | None = None) -> int:
    """Run quantchat with `args` (default: the process's arguments); return the exit status."""
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the terminal's encoding lacks, as stderr does by default.
        sys.stdout.reconfigure(errors="backslashreplace")
    if COMPLETING in os.environ:
        # click writes completions as bytes, which a NeutralStream does not accept. They contain
        # no control characters: they are words of quantchat, and names that `shell_complete`
        # checks.
        return _main(args)
    with neutral_output():
        return _main(args)


def _main(args: Sequence[str] | None) -> int:
    with like_ctrl_c() as ending:
        try:
            return _status(args)
        except (click.Abort, KeyboardInterrupt):
            return ending.status


def _status(args: Sequence[str] | None) -> int:
    try:
        status = root.main(args, prog_name="quantchat", standalone_mode=False)
    except UserError as error:
        for line in error.lines:
            _complain(line)
        return error.status
    except click.ClickException as error:
        _complain(error.format_message() + _see(error))
        return BAD_INPUT
    return status if isinstance(status, int) else 0


def _see(error: click.ClickException) -> str:
    """Return ` (see … --help)` for a usage error, else an empty string."""
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return ""
    ctx = error.ctx.find_root() if error.ctx.command is _open else error.ctx
    return f" (see `{ctx.command_path} --help`)"


def _complain(line: str) -> None:
    click.echo(f"quantchat: {one_line(line)}", err=True)

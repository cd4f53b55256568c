"""The command palette: finds commands by name, by the words of their help, and by synonyms."""

from __future__ import annotations

import re

from textual.command import Hit, Hits
from textual.system_commands import SystemCommandsProvider

from quantchat.app.commands import COMMANDS, PROFILE_COMMANDS, Command

_SYNONYMS = {
    "stop": "cancel abort interrupt halt",
    "order": "parallel sequential contended in-turn simultaneous",
    "regenerate": "retry again redo resend",
    "edit": "change modify",
    "new_chat": "clear reset conversation",
    "remove_oldest": "forget truncate context full",
    "settings": "temperature top_p top_k min_p penalty seed max tokens parameters options",
    "maximise": "maximize zoom full tab single",
    "follow": "scroll end bottom",
    "divergence": "difference",
    "swap": "exchange switch sides",
    "pair": "choose variants model third",
    "reload": "restart crash",
    "measure": "benchmark speed throughput latency",
    "cross_perplexity": "ppl surprisal",
    "agreement": "self-check determinism",
    "vote_blind": "arena preference judge",
    "save": "export json",
    "copy_left": "clipboard yank",
    "copy_right": "clipboard yank",
    "save_answers": "export transcript",
    "log": "error output stderr debug",
    "theme": "mode colors colours",
    "redraw": "refresh repaint",
    "help": "shortcuts glossary",
    "quit": "exit close leave",
    "load_test": "concurrency batch throughput requests serving goodput benchmark",
    "pick": "choose recommend decide best many variants frontier",
}
"""Id of a command → further words by which users look for it."""

_ALL_WORDS = 100.0
"""Added to the score of a command if each word of the query is the start of one of the command's
words. This is higher than the score of any fuzzy match of single letters."""


def title(command: Command) -> str:
    """Return the command's line in the palette: its label and key."""
    return f"{command.label[0].upper()}{command.label[1:]} ({command.key})"


class CommandProvider(SystemCommandsProvider):
    """A provider that searches the help and the synonyms of the app's commands too."""

    async def search(self, query: str) -> Hits:
        """Yield the commands that match `query`."""
        matcher = self.matcher(query)
        wanted = _words(query)
        synonyms = {title(one): _SYNONYMS.get(one.id, "") for one in (*COMMANDS, *PROFILE_COMMANDS)}
        for name, about, callback, *_ in self.app.get_system_commands(self.screen):
            score = matcher.match(name)
            words = _words(f"{name} {about} {synonyms.get(name, '')}")
            if wanted and all(any(word.startswith(one) for word in words) for one in wanted):
                score += _ALL_WORDS
            if score > 0:
                yield Hit(score, matcher.highlight(name), callback, help=about)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())

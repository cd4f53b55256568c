"""The agreement check on the screen: progress, then the table."""

from __future__ import annotations

from quantchat.app.screens.progress import ProgressScreen
from quantchat.app.widgets.text_layout import untrusted
from quantchat.document import terminal
from quantchat.features.agreement import tables
from quantchat.features.agreement.rerun_agreement import AgreementCheck
from quantchat.session.comparison import Comparison


class AgreementScreen(ProgressScreen):
    """Compares each variant of `comparison` with itself on `prompts`."""

    WHAT = "Agreement of each variant with itself"
    KEYS = "Esc: stop, keep results · Esc again: end a worker that hangs"

    def __init__(self, comparison: Comparison, prompts: tuple[str, ...]) -> None:
        super().__init__()
        self._comparison = comparison
        self._check = AgreementCheck(comparison, prompts, self.step)

    def stop(self) -> None:
        """Stop after the running answer."""
        self._check.stop()

    def end_now(self) -> None:
        """End at once, together with a worker that does not stop."""
        self._check.end()

    async def work(self) -> None:
        """Run the check and show the table."""
        try:
            with self._comparison.occupied():
                found = await self._check.run()
        except ValueError as error:  # a variant ended during the check
            self.say(untrusted(str(error), "$error"))
            self.end()
        else:
            self.end(terminal.renderable(tables.blocks(found)))

"""A against A on the screen: progress, then the table."""

from __future__ import annotations

from quantchat.app.screens.progress import ProgressScreen
from quantchat.app.widgets.text_layout import outside
from quantchat.document import terminal
from quantchat.features.agreement import tables
from quantchat.features.agreement.rerun_agreement import AgreementCheck
from quantchat.session.comparison import Comparison


class SelfCheckScreen(ProgressScreen):
    """Checks the pair of `comparison` on `prompts`."""

    WHAT = "Each variant against itself"
    KEYS = "Esc stops, Esc again ends a worker that does not; what was found is kept"

    def __init__(self, comparison: Comparison, prompts: tuple[str, ...]) -> None:
        super().__init__()
        self._comparison = comparison
        self._check = AgreementCheck(comparison, prompts, self.step)

    def stop(self) -> None:
        """End after what is under way."""
        self._check.stop()

    def end_now(self) -> None:
        """End at once, with a worker that does not stop."""
        self._check.end()

    async def work(self) -> None:
        """Check, and show the table."""
        try:
            with self._comparison.occupied():
                found = await self._check.run()
        except ValueError as error:  # a variant ended meanwhile
            self.say(outside(str(error), "$error"))
            self.end()
        else:
            self.end(terminal.rendered(tables.blocks(found)))

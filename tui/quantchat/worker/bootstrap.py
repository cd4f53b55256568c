"""Run as a script: makes `quantchat.worker` importable, alone, and hands over to it.

The interpreter may be one in which quantchat is not installed. Putting quantchat's own
site-packages on the path would mix two environments, so the package is named to the import system
by hand, and nothing else comes with it.
"""

import sys
import types
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    # The script's own folder comes first on the path; its modules are not top-level ones.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    package = types.ModuleType("quantchat")
    package.__path__ = [str(here.parent)]
    sys.modules["quantchat"] = package

    from quantchat.worker.main import main

    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))

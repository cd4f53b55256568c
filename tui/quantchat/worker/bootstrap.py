"""Script that starts a worker: it makes `quantchat` importable and calls `worker.main`.

quantchat may not be installed for this interpreter. Adding the site-packages folder that contains
quantchat to the path would mix two environments, so the script makes only the package `quantchat`
importable. The arguments are those of `worker.main.main`, as decimal numbers.
"""

import sys
import types
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    # Python puts this script's folder on the path. Remove it, because the modules in this folder
    # are submodules of `quantchat.worker`, not top-level modules.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    package = types.ModuleType("quantchat")
    package.__path__ = [str(here.parent)]
    sys.modules["quantchat"] = package

    from quantchat.worker.main import main

    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))

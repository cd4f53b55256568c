"""`python -m quantchat`."""

import sys

from quantchat.cli import main

if __name__ == "__main__":
    sys.exit(main())

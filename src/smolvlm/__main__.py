"""`python -m smolvlm` is the same as the command `smolvlm`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

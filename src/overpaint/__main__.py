"""`python -m overpaint` is the command `overpaint`."""

import sys

# `python -m` looks for modules in the current folder first (but not with -P): a torch.py there is not what is meant.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from overpaint.cli import main

if __name__ == "__main__":
    sys.exit(main())

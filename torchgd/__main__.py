"""``python -m torchgd`` is ``torchgd``."""

import sys

from torchgd.cli import main

sys.exit(main())

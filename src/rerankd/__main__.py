"""`python -m rerankd`."""

import sys

from rerankd.cli.main import main

sys.exit(main())

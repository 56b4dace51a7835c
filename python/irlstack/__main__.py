"""`python -m irlstack` is `irlstack`."""

import sys

from irlstack.cli import main

sys.exit(main())

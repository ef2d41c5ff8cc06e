"""`python -m sth_broker`: the command, where no script of its name is installed."""

import sys

from sth_broker.cli import main

sys.exit(main())

"""`python -m sth_client` is the `sth` command."""

import sys

from sth_client.cli import main

sys.exit(main())

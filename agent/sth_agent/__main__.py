"""`python -m sth_agent`, for those who start the agent without its script."""

from sth_agent.cli import main

raise SystemExit(main())

"""The client library and the `sth` command. Knows only the HTTP API."""

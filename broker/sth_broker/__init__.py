"""The centre: joins machines, keeps Sequences, Instances and Topics, and speaks the HTTP API."""

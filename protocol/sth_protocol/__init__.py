"""What both ends of a link share: frames, credit, sessions, batches, the journal, names, errors.

Pure: no event loop, no sockets, no clock of its own; time is an argument."""

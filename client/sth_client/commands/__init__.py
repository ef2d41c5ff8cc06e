"""The commands of `sth`, one module a group. Each has COMMANDS: name -> Command."""

"""The accelerator on boards: its core with memories and a serial line, and the tops of boards around it."""

"""Programs of the whole accelerator: instruction set, text and file, what a program does, and whether it may run."""

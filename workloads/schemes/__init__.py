"""Training techniques, one file a family."""

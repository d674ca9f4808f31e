"""Weft: from a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator."""

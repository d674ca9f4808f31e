"""What a real step of PyTorch tells of its products: the recorder behind `workloads/trace.py` and what it asks."""

"""The commands of `weft`, one file each, named after it; what they share is beside them.

options.py: options several commands have. inputs.py, pipeline.py: from their words to a simulated step. outputs.py,
console.py: files, JSON, tables. No module here imports torch, numba, numpy or rich before its command runs.
"""

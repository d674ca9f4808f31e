"""Floating-point units: free-running pipelines whose latency is an exact contract.

A unit shows in cycle ``t + latency`` the result of the operands it was given in cycle ``t``. It has no enable and its
registers have no reset, so its output means nothing before ``latency`` cycles have passed. Every operation rounds to
nearest even; a NaN result is canonical (0x7fc00000 in FP32, 0x7e00 in FP16, 0x7fc0 in BF16) whatever the payload of its
operand.
"""

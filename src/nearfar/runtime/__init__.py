"""What every part stands on and no reader of the paper needs.

Kernels, threads, devices, the store.
"""

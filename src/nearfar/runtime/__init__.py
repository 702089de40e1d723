"""The infrastructure that every other package uses, independent of the paper.

Kernel compilation, threads, devices, random numbers, progress bars and storage on disk.
"""

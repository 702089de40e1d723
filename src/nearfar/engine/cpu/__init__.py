"""Training steps on the processor: compiled kernels that every thread of a team runs."""

"""Training steps on any torch device: the same integers as on the processor, the same numbers.

`words` is the counter-based generator in torch, `device_plan` the integers of many steps at once;
`points` and `eager` are the arithmetic of a step in plain torch. `drawing`, `kernels` and `moving`
are the same functions in Triton, `launch` starts them, and `parts` selects one of the two. Both
take the `records`; `arguments` are for Triton alone. `gpu_engine` makes a step of the parts, keeps
all tables on the device, and on a GPU replays whole runs of steps from a CUDA graph.
"""

"""Training steps on any torch device: the same integers as on the processor, the same numbers.

`words` is the counter-based generator in torch, `plan` the integers of many steps at once; `points`
and `eager` are the arithmetic of a step in plain torch. `drawing`, `kernels` and `moving` are the
same functions again in Triton, `launch` starts them, and `parts` says which of both is taken.
`engine` puts a step together from them, keeps all tables on the device, and on a GPU replays whole
runs of steps from a CUDA graph.
"""

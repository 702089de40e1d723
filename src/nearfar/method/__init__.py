"""The paper.

The sphere, the samplers, the loss and the optimiser, as numpy that one can check by eye.
"""

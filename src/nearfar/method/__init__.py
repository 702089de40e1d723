"""The paper.

The sphere, the samplers, the loss and the optimiser, as numpy that one can check by eye: each part
says what it does (`TwoStage.draw`, `Triplet.term`, `Adam.step`) and what it needs of an engine.
"""

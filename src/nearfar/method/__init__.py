"""The method of the paper: geometry, samplers, losses, optimisers and options.

Each part defines in plain numpy what it does (`TwoStage.draw`, `Triplet.term`, `Adam.step`) and
declares what it needs from an engine.
"""

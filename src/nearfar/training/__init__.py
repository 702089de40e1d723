"""Training: epochs, validation, checkpoints, diagnostics, fold-in and warm start."""

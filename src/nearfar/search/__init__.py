"""The nearest points: exactly, on the processor or a device, or through an approximate index."""

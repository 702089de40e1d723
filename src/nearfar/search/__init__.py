"""Search for the nearest points: exact, on the CPU or a device, or with an approximate index."""

"""`CML`, what it has learned, and what becomes of that: the card, the map, export, batches."""

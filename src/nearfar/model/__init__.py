"""`CML`, its fitted state, and what is made from it: the card, the map, export, batches."""

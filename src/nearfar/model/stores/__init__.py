"""Export of a model to databases that search vectors: pgvector, Milvus, LanceDB.

A table has a row for each item (or user) of the model:

===========  =====================================================================================
column       value
===========  =====================================================================================
``id``       the id, an integer of 64 bits or text; the key
``vector``   float32, the coordinates of `nearfar.model.stores.coordinates`
``title``    of items: the title in the item table of the data, or null
``version``  of which model the row is, 16 hexadecimal digits, the same for items and users
===========  =====================================================================================

The score is one inner product: that of the vector of a user and the vector of an item orders items
as `CML.recommend` does. Items and users that `recommend` would not list or answer, because they
have no point, are left out.

- `delivery` has `export_to`, which is the same for all stores;
- `outgoing_rows` makes the rows of a model;
- `vector_store` says what a store must do;
- `pgvector_table`, `milvus_collection` and `lancedb_table` are the stores.

A guide with a query for each store: docs/guides/stores.md.
"""

"""Training on several processes, each with a part of the tables: torch.distributed by torchrun.

A **rank** is one of the processes. It owns a range of the users with about as many pairs as any
other's, and a contiguous part of the items in an order that a keyed permutation gives, so that no
rank has all the popular ones (`shards`). Draws are functions of (seed, step, position), so every
rank hashes the whole batch and keeps the pairs of its users: the batch is that of one machine
(`part_plan`). A step is then

1. owners bring the rows that were asked for up to date and send them: one exchange (`owner`);
2. each rank compares its pairs with the kernels of `nearfar.engine.cpu`, on its own table and on
   copies of rows: where a kernel would change a copy, it leaves the row's slope instead
   (`comparison`). A row that no other rank needs in the step is read and moved where it is;
3. slopes go back to the owners: the second exchange. They add them in the order of the ranks and
   take the optimiser's step, which is that of the CPU engine.

Which rows are asked for depends on no vector, so this is exchanged for many steps at a time. With
one process the result has the bits of the CPU engine.
"""

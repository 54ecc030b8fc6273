"""The stores, a folder each; `planner` plans the batches of all of them."""

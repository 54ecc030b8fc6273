"""The stores: one folder per technology, one shared way to decide a batch."""

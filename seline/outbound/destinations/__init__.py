"""Where exports go, one module per kind of destination."""

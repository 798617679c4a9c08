"""What the RAttention paper (arXiv 2506.15545) says, what its caches weigh, and where a PDF says the same."""

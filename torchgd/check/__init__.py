"""Is my gradient right? The comparison, and the names of the mistakes."""

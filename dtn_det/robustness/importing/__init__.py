"""Results of other tools: read, and put into a store."""

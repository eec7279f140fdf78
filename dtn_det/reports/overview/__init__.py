"""One overview of models on several sets: a column for each number of a set, and paired differences of models."""

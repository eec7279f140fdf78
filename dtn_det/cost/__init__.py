"""The cost of models: FLOPs and parameters, and other facts, such as how a model was trained."""

"""The cost of models: FLOPs and parameters, and facts such as how a model was trained."""

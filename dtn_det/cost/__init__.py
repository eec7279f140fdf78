"""What a model costs: FLOPs, parameters, and facts about its training."""

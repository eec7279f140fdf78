"""Sample images of a report, corrupted again as in the evaluation, with the answers of the models."""

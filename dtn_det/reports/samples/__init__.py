"""Sample images of a report: corrupted again as they were evaluated, with what each model says of them."""

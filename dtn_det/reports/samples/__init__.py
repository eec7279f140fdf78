"""Sample images of a report: corrupted again as they were evaluated, with what each model says of them."""

from dtn_det.reports.samples.gallery import Answer, Box, Disagreement, Gallery, Picture, SampleImage, make_samples

__all__ = ["Answer", "Box", "Disagreement", "Gallery", "Picture", "SampleImage", "make_samples"]

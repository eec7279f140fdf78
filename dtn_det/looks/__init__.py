"""Former name of :mod:`dtn_det.inspection`, kept for code that imports ``dtn_det.looks.looks``."""

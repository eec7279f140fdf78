"""Former name of :mod:`dtn_det.inspection`. Only ``dtn_det.looks.looks`` remains, for code that imports it."""

"""Former name of :mod:`dtn_det.inspection`, of which ``dtn_det.looks.looks`` alone is kept for those who import it."""

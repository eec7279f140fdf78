"""DTN for sequences: the Long ListOps task of the Long-Range Arena, and encoders of sequences for it."""

from dtn_det.sequence.listops import VOCABULARY, ListOps, read_listops, write_listops
from dtn_det.sequence.trees import Expression, sample_expression

__all__ = ["VOCABULARY", "Expression", "ListOps", "read_listops", "sample_expression", "write_listops"]

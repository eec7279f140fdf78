"""The table of odd annotation files in the docs says what the tests of these files hold."""

from __future__ import annotations

from pathlib import Path

from odd_coco_files import ODD_FILES, OddFile

TOLD = {
    "annotation_id_zero": "the object gets another id",
    "annotation_ids_twice": "the ids are made unique",
    "ignored_in_training": "MMDetection leaves these objects out of training",
    "areas_filled": "areas are those of the masks, or of the boxes without masks",
    "boxes_beside_masks": "boxes that their masks do not fill",
    "masks_unread_in_training": "MMDetection does not read such masks",
    "areas_beside_boxes": "areas that are not those of the objects; AP by size goes by `area`",
    "boxes_without_extent": "no detection can match the box, so that it counts as missed",
    "dropped_in_training": "MMDetection drops the object from training",
    "masks_of_other_size": "masks of another size than their images",
    "images_twice": "one copy is taken",
    "categories_twice": "one copy is taken",
    "annotations_without_image": "the object is left out",
    "annotations_without_category": "the object is left out",
    "category_names_twice": "one of the categories has no objects",
    "federated": "LVIS's rule, or that COCO's is applied",
}
"""What is told, by the kind of the remark."""


def row(name: str, odd: OddFile) -> str:
    if odd.refusal is not None:
        answer = "masks are refused, boxes are evaluated" if odd.boxes_only else "refused"
        told = "annotation and image are named" if "annotation" in odd.refusal else "the cause is named"
        return f"| {name} | {answer} | {told} |"
    answer = "evaluated as pycocotools evaluates the file"
    if odd.like is not None:
        answer = "evaluated as the mended file; pycocotools fails on this one or gives another number"
    if odd.boxes_only:
        answer += ", boxes alone"
    return f"| {name} | {answer} | {'; '.join(dict.fromkeys(TOLD[kind] for kind in odd.remarks)) or 'nothing'} |"


def test_each_odd_file_has_its_row(project_root: Path) -> None:
    lines = (project_root / "docs" / "annotations.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| ")][1:] == [row(*one) for one in ODD_FILES.items()]

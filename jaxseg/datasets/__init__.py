"""The datasets by name; keyword-only parameters of a scan function are config keys."""

from jaxseg.datasets import (
    coco,
    crack_segmentation,
    dagm2007,
    folder_classification,
    folder_segmentation,
    kolektor_sdd,
    labelme,
    massachusetts_roads,
    pascal_voc,
    sdnet2018,
    severstal,
    synthetic,
)

DATASETS = {
    "sdnet2018": sdnet2018.scan,
    "crack_segmentation": crack_segmentation.scan,
    "kolektor_sdd": kolektor_sdd.scan,
    "dagm2007": dagm2007.scan,
    "severstal": severstal.scan,
    "folder_classification": folder_classification.scan,
    "folder_segmentation": folder_segmentation.scan,
    "labelme": labelme.scan,
    "coco": coco.scan,
    "pascal_voc": pascal_voc.scan,
    "massachusetts_roads": massachusetts_roads.scan,
    "synthetic": synthetic.scan,
}

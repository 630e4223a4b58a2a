"""The datasets by name; keyword-only parameters of a scan function are config keys."""

from jaxseg.datasets import (
    crack_segmentation,
    folder_classification,
    folder_segmentation,
    massachusetts_roads,
    sdnet2018,
    synthetic,
)

DATASETS = {
    "sdnet2018": sdnet2018.scan,
    "crack_segmentation": crack_segmentation.scan,
    "folder_classification": folder_classification.scan,
    "folder_segmentation": folder_segmentation.scan,
    "massachusetts_roads": massachusetts_roads.scan,
    "synthetic": synthetic.scan,
}

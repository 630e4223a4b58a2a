"""One TFDS builder for every dataset: the original bytes of the files in ArrayRecord.

A prepared set is keyed by the content of the files, so neither other labels and groups
nor moving or touching the files prepares them again. TFDS writes it aside and renames
it when it is complete. TensorFlow is not needed: the features are bytes, and Pillow
decodes them (`images`).
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from jaxseg import files, progress
from jaxseg.data import stock
from jaxseg.data.check import Checked

SPLIT = "records"
VERSION = "1.0.0"
MORE_ROOM = "free some, or --config.data.cache_dir=DIR on a larger disk"


class Prepared(tfds.core.GeneratorBasedBuilder):
    """Record i holds the bytes of `image` and `mask` (b'' without one) of sample i."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, checked: Checked, data_dir: Path):
        self._checked = checked
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        raw = tfds.features.Scalar(dtype=np.object_)
        features = tfds.features.FeaturesDict({"image": raw, "mask": raw})
        # Unshuffled: the position of a record is the position of its row.
        return tfds.core.DatasetInfo(
            builder=self, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, bytes]]]:
        records = self._checked.records
        for i, checked in enumerate(
            progress.track(records, len(records), "Preparing records")
        ):
            record = checked.record
            mask = b"" if record.mask is None else record.mask.read_bytes()
            yield i, {"image": record.image.read_bytes(), "mask": mask}


def prepare(checked: Checked, cache_dir: Path):
    """The prepared set as a random-access source of `{'image': bytes, 'mask': bytes}`.

    Written on first use; a killed preparation leaves nothing that looks finished.

    Raises:
      InputError: the disk is full.
    """
    folder = cache_dir / "prepared" / checked.files_hash[:20]
    builder_dir = folder / Prepared.name / VERSION
    with files.exclusive(folder.with_suffix(".lock"), wait=True):
        if not (builder_dir / "dataset_info.json").is_file():
            _write(checked, folder)
        stock.mark_used(folder)
    builder = tfds.builder_from_directory(builder_dir)
    return builder.as_data_source(split=SPLIT)


def _write(checked: Checked, folder: Path) -> None:
    tfds.disable_progress_bar()
    with (
        files.explain_full_disk(folder.parent, MORE_ROOM),
        files.atomic_folder(folder) as temporary,
        contextlib.redirect_stdout(io.StringIO()) as tfds_chatter,
    ):
        del tfds_chatter
        Prepared(checked, temporary).download_and_prepare()

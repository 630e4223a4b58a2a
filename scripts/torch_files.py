"""Batches from image files for torch_twin.py, as PyTorch's users read them."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling


class Files(torch.utils.data.Dataset):
    """Images with their masks or labels: opened, resized and flipped every time."""

    def __init__(self, listing: dict, hflip: float):
        self.listing, self.hflip = listing, hflip

    def __len__(self) -> int:
        return len(self.listing["images"])

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        item = {"image": self._read("images", k, "RGB", Resampling.BILINEAR)}
        if "masks" in self.listing:
            item["mask"] = self._read("masks", k, "L", Resampling.NEAREST) > 0
        if torch.rand(()) < self.hflip:
            item = {name: array[:, ::-1].copy() for name, array in item.items()}
        return item | {"label": self.listing["labels"][k]}

    def _read(self, name: str, k: int, mode: str, resampling) -> np.ndarray:
        height, width = self.listing["size"]
        with Image.open(self.listing[name][k]) as image:
            return np.array(image.convert(mode).resize((width, height), resampling))


def read_batches(
    listing: dict, workers: int, device: str, hflip: float
) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches, epoch after epoch."""
    loader = torch.utils.data.DataLoader(
        Files(listing, hflip),
        batch_size=listing["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )
    while True:
        yield from loader

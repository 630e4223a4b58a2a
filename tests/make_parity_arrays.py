"""Writes parity.npz: what the PyTorch libraries compute from weights made by a rule.

    pip install torch==2.13.0
    pip install --no-deps torchvision timm segmentation-models-pytorch
    python tests/make_parity_arrays.py

Weights are functions of their names, so none are stored. test_pretrained.py compares
our networks with these arrays, and, where PyTorch is installed, the arrays with the
libraries.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("parity.npz")
LIBRARIES = ("torch", "torchvision", "timm", "segmentation_models_pytorch")
UNETS = ("smp resnet34", "smp efficientnet-b0", "smp efficientnet-b1")
PYRAMIDS = {  # odd sizes show where strided kernels stand
    "torchvision resnet18": (69, 107),
    "timm efficientnet_b1": (69, 107),
    "timm tf_efficientnet_b0": (69, 107),
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The entry of a state dict: random numbers that keep activations of order 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("weight") and len(shape) == 1:  # small: residuals add up
        return rng.uniform(0.5, 1.1, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.uniform(-0.2, 0.2, shape).astype(np.float32)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)


def picture(height: int, width: int) -> np.ndarray:
    """Two images [2, height, width, 3] float32."""
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("f4")


def summarize(feature: np.ndarray) -> np.ndarray:
    """[2, 3, C]: mean, deviation and the last pixel of a feature [2, C, h, w]."""
    pixels = feature.reshape(*feature.shape[:2], -1)
    return np.stack([pixels.mean(-1), pixels.std(-1), pixels[..., -1]], axis=1)


def import_libraries():
    """(torch, torchvision, timm, smp)."""
    scripts = str(Path(__file__).parents[1] / "scripts")
    if scripts not in sys.path:
        sys.path.insert(0, scripts)
    import torch_networks

    torchvision = torch_networks.import_torchvision()
    import segmentation_models_pytorch
    import timm

    return torch_networks.torch, torchvision, timm, segmentation_models_pytorch


def build(name: str, libraries):
    """A network of a library with the weights of the rule."""
    torch, torchvision, timm, smp = libraries
    library, model = name.split(" ")
    if library == "smp":
        network = smp.Unet(model, encoder_weights=None, classes=1)
        network.encoder._drop_connect_rate = 0.0
    elif library == "timm":
        network = timm.create_model(model)
    else:
        network = torchvision.models.get_model(model)
    state = {
        key: torch.from_numpy(weight(key, tuple(value.shape)))
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval()


def pyramid(name: str, network, image) -> list:
    """Features [2, C, h, w] at the strides 2 (not for timm) to 32."""
    if name.startswith("smp"):
        return network.encoder(image)[1:]
    if name.startswith("timm"):
        _, blocks = network.forward_intermediates(image)
        return [*blocks[-4:-1], network.forward_features(image)]
    x = network.relu(network.bn1(network.conv1(image)))
    features, x = [x], network.maxpool(x)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        features.append(x)
    return features


def compute(name: str, libraries) -> dict[str, np.ndarray]:
    """The arrays of one network."""
    torch = libraries[0]
    network = build(name, libraries)
    size = PYRAMIDS.get(name, (64, 96))
    image = torch.from_numpy(picture(*size).transpose(0, 3, 1, 2).copy())
    shapes = {key: tuple(v.shape) for key, v in network.state_dict().items()}
    arrays = {"shapes": np.array(json.dumps(shapes))}
    parameters = sum(p.numel() for p in network.parameters())
    arrays["num_parameters"] = np.array(parameters)
    with torch.no_grad():
        for level, feature in enumerate(pyramid(name, network, image)):
            arrays[f"feature_{level}"] = summarize(feature.numpy())
        if name in UNETS:
            arrays["logits"] = network(image).numpy()[:, 0, ::2, ::2]
            arrays["train_logits"] = network.train()(image).numpy()[:, 0, ::4, ::4]
            arrays |= {
                key: value.numpy()
                for key, value in network.state_dict().items()
                if ".running_" in key and value.numel() <= 40
            }
    return arrays


def main() -> None:
    libraries = import_libraries()
    arrays = {
        f"{name}/{key}": array
        for name in (*UNETS, *PYRAMIDS)
        for key, array in compute(name, libraries).items()
    }
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH.name}: {len(arrays)} arrays, {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

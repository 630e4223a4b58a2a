"""The run as frozen dataclasses; `parsing` makes them of a config file.

A config file returns a nested record with six groups (`task model data loss optim
train`) and a `seed`. `optim` and `train` have their schema here. `task`, `model`,
`data` and `loss` name a function; its keyword-only parameters are the keys that the
config must set, so a key is declared once, beside the code that reads it. No key has a
hidden default except the machinery fields below that do not change a result.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

GROUPS = ("seed", "task", "model", "data", "loss", "optim", "train")


@dataclasses.dataclass(frozen=True)
class Spec:
    """A name in one of the explicit dicts, and the keyword arguments for it."""

    name: str
    kwargs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """The network, and the weights it starts from (at most one of the three)."""

    network: Spec
    encoder_weights: str = ""  # 'PATH.safetensors' or 'hf:REPO', published by others
    encoder_init: str = ""  # 'runs/…/model': the encoder of a model trained here
    init: str = ""  # 'runs/…/model' or 'smp:PATH.safetensors': the whole network


@dataclasses.dataclass(frozen=True)
class Crop:
    """Windows of `image_size` out of the full-size images, instead of resizing."""

    per_image: int  # random windows of each training image in an epoch
    foreground_share: float  # of them that are centred on a foreground pixel


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read and how; keys of the dataset's own are in `source.kwargs`."""

    dir: str  # folder of the dataset
    image_size: tuple[int, int]  # (H, W) that the network sees, pixels
    channels: Literal[1, 3]
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    split: str  # 'grouped', 'published', 'random', 'kfold', or a split.csv
    split_seed: int  # apart from `seed`: seeds of one experiment share the split
    val_fraction: float
    test_fraction: float
    sampling: Literal["shuffle", "balanced", "matched", "least_used"]
    cache: Literal["auto", "none", "host", "device"]
    augment: Mapping[str, Mapping[str, Any]]  # only what is named is done
    source: Spec
    num_positives: int | None = None  # training images with a defect in use; None: all
    num_segmented: int | None = None  # training masks of defects in use; None is all
    segmented_file: str = ""  # or a list of the images whose masks are in use
    crop: Crop | None = None  # None resizes every image to `image_size`
    palette: tuple[str, ...] = ()  # '#rrggbb' by class id, then those to ignore
    num_folds: int = 5  # of split='kfold'
    fold: int = 0
    mm_per_pixel: float | None = None  # of the original images, for measurements
    on_corrupt: Literal["fail", "skip"] = "fail"
    cache_dir: str = ""  # '' is $XDG_CACHE_HOME/jaxseg
    workers: int = 0  # threads that read and decode; 0 is one per core


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Lowers the learning rate when `train.monitor` stalls (Keras counting)."""

    factor: float
    patience: int  # epochs
    min_delta: float
    cooldown: int  # epochs; the last of them counts again, so 1 is as 0
    min_learning_rate: float


@dataclasses.dataclass(frozen=True)
class Part:
    """How a part of the network trains apart from the rest."""

    rate: float  # times the learning rate; 0 never trains
    from_epoch: int  # until then the part stays as it is


@dataclasses.dataclass(frozen=True)
class Optim:
    name: Literal["adam", "adamw", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "cosine", "step"]
    plateau: Plateau | None
    warmup_epochs: float
    momentum: float  # of sgd; adam keeps its betas (0.9, 0.999)
    weight_decay: float  # never on norms and biases
    clip_norm: float | None  # of the global gradient
    milestones: tuple[int, ...] = ()  # epochs of schedule='step'
    decay_factor: float = 0.1
    # By the beginning of parameter names, the longest that fits: 'encoder/stage_4'.
    parts: Mapping[str, Part] | None = None


@dataclasses.dataclass(frozen=True)
class Train:
    batch_size: int  # global, whatever the number of devices
    epochs: int
    early_stop: int | None  # epochs without improvement of `monitor`
    precision: Literal["float32", "bfloat16", "auto"]
    monitor: str  # a metric of the validation set: 'loss', 'auc', 'iou/crack/pooled'
    accumulate: int  # micro-batches a step, each of batch_size / accumulate
    ema_decay: float | None
    # (height, epochs), small to large; () is `data.image_size` in all epochs
    sizes: tuple[tuple[int, int], ...] = ()
    reduction: Literal["mean", "sum"] = "mean"  # of the losses of a batch's images
    grow_batch: bool = False  # small images come in batches of as many pixels
    # Kept for the gradient: everything, convolutions' outputs only, or blocks' only
    remat: Literal["none", "norms", "blocks"] = "none"
    shard_optimizer: bool = False  # a share of its arrays on each device
    max_skipped: int = 3  # steps in a row whose gradients are not finite
    steps_per_call: int = 1  # in one program; the host looks between calls only
    log_every: int = 20  # steps between two looks at the loss
    save_every: int | None = None  # steps; long epochs are saved in between
    preview: int = 4  # validation samples drawn every epoch; 0 is none
    log_to: tuple[Literal["wandb", "mlflow"], ...] = ()  # beside files and TensorBoard
    profile_steps: tuple[int, int] | None = None  # these and those before the second


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run, complete and checked."""

    seed: int
    task: Spec
    model: Model
    data: Data
    loss: Mapping[str, Mapping[str, Any]]
    optim: Optim
    train: Train


def to_dict(run: Run) -> dict[str, Any]:
    """The resolved run in the shape of the config file, ready for JSON."""
    tree = dataclasses.asdict(run)
    tree["task"] = {"name": run.task.name, **run.task.kwargs}
    for group, spec in (("model", "network"), ("data", "source")):
        named = tree[group].pop(spec)
        tree[group] = {"name": named["name"], **named["kwargs"], **tree[group]}
    return tree

"""Values of a config that do not fit together, or no key can have."""

from jaxseg.config import Data, Model, Optim, Run, Train, to_dict
from jaxseg.schema import flatten, out_of_bounds


def find_contradictions(run: Run) -> list[str]:
    """What single keys cannot know: values that do not fit together."""
    return [
        *(f"config.{text}" for text in out_of_bounds(flatten(to_dict(run)))),
        *_wrong_start(run.model),
        *_wrong_data(run.data),
        *_wrong_optim(run.optim),
        *_wrong_steps(run.train),
        *_wrong_sizes(run.data.image_size, run.train),
    ]


def _wrong_start(model: Model) -> list[str]:
    starts = ("encoder_weights", "encoder_init", "init")
    given = [key for key in starts if getattr(model, key)]
    if len(given) < 2:
        return []
    return [f"config.model: only one of {', '.join(given)} can be the start"]


def _wrong_data(data: Data) -> list[str]:
    problems = []
    if {len(data.mean), len(data.std)} != {data.channels}:
        problems.append(
            f"config.data.mean and .std: expected {data.channels} numbers, one per "
            f"channel, found {len(data.mean)} and {len(data.std)}"
        )
    if data.val_fraction <= 0 or data.test_fraction < 0:
        problems.append(
            "config.data.val_fraction must be over 0, test_fraction not under"
        )
    if data.val_fraction + data.test_fraction >= 1:
        problems.append(
            "config.data.val_fraction + test_fraction leave nothing to train"
        )
    if data.num_segmented is not None and data.segmented_file:
        problems.append(
            "config.data: only one of num_segmented and segmented_file can choose masks"
        )
    return problems + _wrong_folds(data)


def _wrong_folds(data: Data) -> list[str]:
    if data.num_folds < 2:
        return [f"config.data.num_folds: expected at least 2, found {data.num_folds}"]
    if not 0 <= data.fold < data.num_folds:
        return [
            f"config.data.fold: expected 0 to {data.num_folds - 1}, found {data.fold}"
        ]
    if data.fold and data.split != "kfold":
        return [
            f"config.data.fold={data.fold} has no effect on config.data.split="
            f"{data.split!r}; --config.data.split=kfold"
        ]
    return []


def _wrong_optim(optim: Optim) -> list[str]:
    problems = []
    if optim.plateau and not 0 < optim.plateau.factor < 1:
        problems.append(
            f"config.optim.plateau.factor: expected more than 0 and less than 1, found "
            f"{optim.plateau.factor}"
        )
    for name, part in (optim.parts or {}).items():
        if part.rate < 0 or part.from_epoch < 0:
            problems.append(
                f"config.optim.parts.{name}: expected numbers of at least 0, found "
                f"{part}"
            )
    if optim.schedule == "step" and not optim.milestones:
        problems.append(
            "config.optim.milestones is missing; schedule='step' needs epochs"
        )
    if optim.milestones and optim.schedule != "step":
        problems.append(
            f"config.optim.milestones={optim.milestones} has no effect on "
            f"config.optim.schedule={optim.schedule!r}; --config.optim.schedule=step "
            'or --config.optim.milestones="()"'
        )
    return problems


def _wrong_steps(train: Train) -> list[str]:
    if train.batch_size % max(train.accumulate, 1) == 0:
        return []
    return [
        f"config.train.accumulate={train.accumulate} does not divide "
        f"config.train.batch_size={train.batch_size}"
    ]


def _wrong_sizes(image_size: tuple[int, int], train: Train) -> list[str]:
    """A size schedule that does not add up."""
    if not train.sizes:
        return []
    (height, width), sides = image_size, [side for side, _ in train.sizes]
    total = sum(epochs for _, epochs in train.sizes)
    problems = []
    if any(number <= 0 for pair in train.sizes for number in pair):
        problems.append("config.train.sizes: expected pairs (height, epochs) over 0")
    elif total != train.epochs:
        problems.append(
            f"config.train.sizes: the epochs sum to {total}, and config.train.epochs="
            f"{train.epochs}; --config.train.epochs={total}"
        )
    elif sides != sorted(sides) or sides[-1] != height:
        problems.append(
            f"config.train.sizes: expected heights that grow up to {height} "
            f"(config.data.image_size), found {sides}"
        )
    elif any(side * width % height for side in sides):
        problems.append(
            f"config.train.sizes: expected heights that give whole widths of images "
            f"{height} x {width}, found {sides}"
        )
    return problems

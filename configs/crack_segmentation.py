"""crack_segmentation: SegDecNet (15,638,813 parameters) on 11,298 photos of cracks.

Source: the run of 9,603 training and 1,695 test images with AP 0.9985, AUC 0.9904, 27
false alarms and 8 misses, on https://github.com/khanhha/crack_segmentation. Differs:
validation images are taken from the training part, and the threshold is chosen on them,
there on the test part.

python scripts/train.py --config configs/crack_segmentation.py --config.data.dir=DIR \
    --workdir runs/crack_segmentation

DIR: train/images, train/masks, test/images, test/masks; or train_positive,
train_negative, test_positive, test_negative, of NAME.jpg with NAME_GT.jpg. Every image
once an epoch, as there; `data.sampling=least_used` meets every positive with a
negative. Batches of 8, whose losses are summed as there, diverge at this rate (in
PyTorch as well): add --config.train.reduction=mean or --config.optim.clip_norm=1.0.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(
                name="segdec",
                delta=0.01,
                soft_label=True,
                dynamic=True,
                weighted=True,
                weight_power=2.0,
                weight_max=1.0,
                weight_per_component=False,
                dilate=1,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(name="segdecnet", adjust_gradient=True, variant="released"),
            data=dict(
                name="crack_segmentation",
                dir="data/crack_segmentation",
                image_size=(640, 232),
                channels=3,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                split="published",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.0,
                sampling="shuffle",
                cache="auto",
                augment=dict(),
            ),
            loss=dict(),
            optim=dict(
                name="sgd",
                learning_rate=1.0,
                schedule="constant",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=1,
                epochs=50,
                early_stop=None,
                precision="auto",
                monitor="ap",
                accumulate=1,
                ema_decay=None,
                reduction="sum",
            ),
        )
    )

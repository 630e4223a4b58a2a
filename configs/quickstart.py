"""A small U-Net with an image head on generated photographs of cracked concrete.

python scripts/train.py --config configs/quickstart.py --workdir runs/quickstart

Expected: AP about 0.95 of the test images, IoU of the cracks about 0.5.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(
                name="joint",
                mask_weight=1.0,
                image_weight=0.2,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(
                name="unet",
                widths=(16, 32, 64, 128),
                norm="batch",
                bn_group=None,
                activation="relu",
                dropout=(0.0, 0.0, 0.0, 0.0),
                decoder="transpose",
                head_kernel=1,
                image_head=True,
                adjust_gradient=False,
            ),
            data=dict(
                name="synthetic",
                dir="~/.cache/jaxseg/synthetic",
                num_photos=120,
                seed=0,
                image_size=(128, 128),
                channels=3,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
                split="grouped",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.2,
                sampling="shuffle",
                cache="auto",
                augment=dict(
                    hflip=dict(p=0.5),
                    vflip=dict(p=0.5),
                    transpose=dict(p=0.5),
                ),
            ),
            loss=dict(
                bce=dict(weight=1.0, pos_weight=1.0),
                jaccard=dict(weight=1.0, smooth=1.0),
            ),
            optim=dict(
                name="adam",
                learning_rate=2e-3,
                schedule="cosine",
                plateau=None,
                warmup_epochs=0.5,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=1.0,
            ),
            train=dict(
                batch_size=16,
                epochs=8,
                early_stop=None,
                precision="auto",
                monitor="dice/crack/pooled",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

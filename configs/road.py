"""Roads from the air: small U-Net (1,941,105 parameters) on windows of 128x128 pixels.

Source: https://github.com/PhilipTeri/Deep-Learning-Road-Segmentation, best validation
cross-entropy 0.1555. Differs: windows anywhere in a tile and new ones in every epoch,
there one fixed corner of each tile; half of them around a road pixel; flips.

python scripts/train.py --config configs/road.py --config.data.dir=DIR \
    --workdir runs/road

DIR: Massachusetts Roads, DIR/training/input/img-N.png and DIR/training/output/img-N.png
(and validation, testing where they are there). Mostly blank tiles and files without a
partner are left out and listed in runs/road/skipped.csv.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="segmentation", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="unet",
                widths=(16, 32, 64, 128, 256),
                norm="none",
                bn_group=None,
                activation="elu",
                dropout=(0.1, 0.1, 0.2, 0.2, 0.3),
                decoder="transpose",
                head_kernel=1,
                image_head=False,
                adjust_gradient=False,
            ),
            data=dict(
                name="massachusetts_roads",
                dir="data/massachusetts-roads",
                max_blank=0.05,
                image_size=(128, 128),
                crop=dict(per_image=4, foreground_share=0.5),
                channels=3,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                split="grouped",
                split_seed=0,
                val_fraction=0.1,
                test_fraction=0.1,
                sampling="shuffle",
                cache="auto",
                augment=dict(hflip=dict(p=0.5), vflip=dict(p=0.5), rot90=dict(p=1.0)),
            ),
            loss=dict(bce=dict(weight=1.0, pos_weight=1.0)),
            optim=dict(
                name="adam",
                learning_rate=1e-3,
                schedule="constant",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=16,
                epochs=100,
                early_stop=5,
                precision="auto",
                monitor="loss",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

"""Speed lines: U-Net on ResNet-34 (24,436,369 parameters).

Source: https://github.com/Andrii-Radyhin/speedlines-detection, which reports a soft IoU
of 0.9078 and a soft Dice of 0.9516 on the part that also stopped the training. Differs:
validation and test are apart; the encoder is torchvision's, there one with
activations before the convolutions.

python scripts/train.py --config configs/speedlines.py --config.data.dir=DIR \
    --workdir runs/speedlines

DIR: image/N.png and label/N.png; the lines are dark on white in the labels. Several
images of one photograph belong together: `data.group_pattern`. The encoder may start
from ImageNet, from timm's hub or a downloaded file, or from a classifier trained on
these images (configs/speedlines_encoder.py):
--config.model.encoder_weights=hf:timm/resnet34.a1_in1k, or
--config.model.encoder_init=runs/speedlines_encoder/model
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="segmentation", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="encoder_unet",
                encoder="resnet34",
                skips="blocks",
                decoder_widths=(256, 128, 64, 32, 16),
                bn_group=None,
                drop_path=0.0,
                image_head=False,
                adjust_gradient=False,
            ),
            data=dict(
                name="folder_segmentation",
                dir="data/speedlines",
                image_dir="image",
                mask_dir="label",
                mask_suffix="",
                foreground="dark",
                classes=("background", "line"),
                classes_file="",
                group_pattern="",
                image_size=(256, 256),
                channels=3,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                split="grouped",
                split_seed=0,
                val_fraction=0.1,
                test_fraction=0.1,
                sampling="shuffle",
                cache="auto",
                augment=dict(
                    crop=dict(p=0.5, share=(0.195, 0.395)),
                    vflip=dict(p=0.5),
                    rot90=dict(p=0.5),
                    elastic=dict(p=0.2, alpha=120.0, sigma=6.0),
                    grid=dict(p=0.2, steps=5, limit=0.3),
                    optical=dict(p=0.4, limit=1.0, shift=0.5),
                ),
            ),
            loss=dict(
                bce=dict(weight=1.0, pos_weight=1.0),
                jaccard=dict(weight=1.0, smooth=1e-5),
            ),
            optim=dict(
                name="adam",
                learning_rate=1e-3,
                schedule="constant",
                plateau=dict(
                    factor=0.5,
                    patience=5,
                    min_delta=1e-4,
                    cooldown=2,
                    min_learning_rate=1e-6,
                ),
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=16,
                epochs=50,
                early_stop=10,
                precision="auto",
                monitor="loss",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

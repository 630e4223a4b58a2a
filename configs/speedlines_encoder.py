"""The encoder of a speed-line U-Net, trained first to tell windows with a line.

Source: the 'one more trick' of https://github.com/Andrii-Radyhin/speedlines-detection.
No class folders are needed: windows are cut from the images, and a window is of the
class 'line' if its mask shows one.

python scripts/train.py --config configs/speedlines_encoder.py --config.data.dir=DIR \
    --workdir runs/speedlines_encoder
python scripts/train.py --config configs/speedlines.py --config.data.dir=DIR \
    --config.model.encoder_init=runs/speedlines_encoder/model --workdir runs/speedlines

The encoder must be that of the U-Net: --config.model.encoder=tf_efficientnet_b0.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="classification", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="classifier",
                encoder="resnet34",
                bn_group=None,
                drop_path=0.0,
                dropout=0.0,
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
                image_size=(64, 64),
                crop=dict(per_image=8, foreground_share=0.5),
                channels=3,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
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
                schedule="cosine",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=64,
                epochs=20,
                early_stop=None,
                precision="auto",
                monitor="auc",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

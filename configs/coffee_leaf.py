"""Coffee-leaf disease: U-Net 64-128-256-512 (7,699,011 parameters), three classes.

Source: https://github.com/phuvinh010701/Detect-Disease-On-Coffee-Leaves-Segmantation,
whose network has no activation after its convolutions (`activation="linear"`), a plain
cross-entropy and no held-out test set. There early stopping with patience 2 ended at a
network that predicts background alone, which is right for 96.69 % of the pixels:
patience, class weights and Dice keep this one away from that. The augmentation is the
author's, drawn anew in every epoch, there five copies made once.

python scripts/train.py --config configs/coffee_leaf.py --config.data.dir=DIR \
    --workdir runs/coffee

Images STEM.JPG and label images STEM_gt.png (grey value = class id) side by side, as
exported from the MVTec Deep Learning Tool; other names: `data.classes_file`.
The larger network, 31,033,411 parameters:
--config.model.widths="(64, 128, 256, 512, 1024)" \
    --config.model.dropout="(0.0, 0.0, 0.0, 0.0, 0.0)"
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="segmentation", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="unet",
                widths=(64, 128, 256, 512),
                norm="none",
                bn_group=None,
                activation="relu",
                dropout=(0.0, 0.0, 0.0, 0.0),
                decoder="transpose",
                head_kernel=3,
                image_head=False,
                adjust_gradient=False,
            ),
            data=dict(
                name="folder_segmentation",
                dir="data/coffee",
                image_dir=".",
                mask_dir=".",
                mask_suffix="_gt",
                foreground="bright",
                classes=("background", "leaf_miner", "rust"),
                classes_file="",
                group_pattern="",
                image_size=(256, 256),
                channels=3,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                split="grouped",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.15,
                sampling="shuffle",
                cache="auto",
                augment=dict(
                    crop=dict(p=0.5, share=(0.8, 1.0)),
                    scale=dict(p=1.0, factor=(0.8, 1.2)),
                    shear=dict(p=1.0, degrees=8.0),
                    rotate=dict(p=1.0, degrees=90.0),
                    translate=dict(p=1.0, share=0.2),
                    hflip=dict(p=0.5),
                    vflip=dict(p=0.5),
                    gain=dict(p=1.0, factor=(0.8, 1.2), per_channel=0.2),
                ),
            ),
            loss=dict(
                cross_entropy=dict(weight=1.0, class_weights=dict(balanced_up_to=10.0)),
                dice=dict(weight=1.0, smooth=1.0),
            ),
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
                early_stop=12,
                precision="auto",
                monitor="loss",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

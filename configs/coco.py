"""Images annotated in the COCO format: U-Net (7.76 million parameters), batch norm.

python scripts/train.py --config configs/coco.py \
    --config.data.dir=DIR --workdir runs/mine

DIR/annotations.json and DIR/images. With more than one category:
--config.data.classes="()" takes all of them; then --config.train.monitor=loss and
the losses of configs/coffee_leaf.py.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="segmentation", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="unet",
                widths=(32, 64, 128, 256, 512),
                norm="batch",
                bn_group=None,
                activation="relu",
                dropout=(0.0, 0.0, 0.0, 0.0, 0.0),
                decoder="transpose",
                head_kernel=1,
                image_head=False,
                adjust_gradient=False,
            ),
            data=dict(
                name="coco",
                dir="data",
                annotations="annotations.json",
                image_dir="images",
                classes=("background", "crack"),
                group_pattern="",
                image_size=(224, 224),
                channels=3,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                split="grouped",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.2,
                sampling="shuffle",
                cache="auto",
                augment=dict(hflip=dict(p=0.5), vflip=dict(p=0.5)),
            ),
            loss=dict(
                bce=dict(weight=1.0, pos_weight=1.0),
                jaccard=dict(weight=1.0, smooth=1.0),
            ),
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
                batch_size=8,
                epochs=40,
                early_stop=None,
                precision="auto",
                monitor="iou/crack/pooled",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

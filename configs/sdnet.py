"""SDNET2018: cracked or not, ResNet-18 at 256x256, whole photographs apart.

Data: https://doi.org/10.15142/T3TD19 (CC BY 4.0), unpacked; `data.dir` is the folder
with D, P and W in it.

python scripts/train.py --config configs/sdnet.py --config.data.dir=DIR \
    --workdir runs/sdnet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="classification", threshold="max_f1", min_recall=0.95),
            model=dict(
                name="classifier",
                encoder="resnet18",
                bn_group=None,
                drop_path=0.0,
                dropout=0.0,
            ),
            data=dict(
                name="sdnet2018",
                dir="SDNET2018",
                image_size=(256, 256),
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
                epochs=30,
                early_stop=None,
                precision="auto",
                monitor="auc",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

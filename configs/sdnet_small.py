"""SDNET2018 with the 412,849-parameter network of an assignment at 64x64.

Source: https://github.com/alexdimakos1991/Deep-Learning-Final-Assignment-SDNET-2018
Differs: the crack is the positive class, the loss sees logits once, classes are
balanced by sampling, and photographs stay whole. The learning rate drops on a plateau
of the validation F1, there of the loss.

python scripts/train.py --config configs/sdnet_small.py --config.data.dir=DIR \
    --workdir runs/sdnet_small
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(name="classification", threshold="max_f1", min_recall=0.95),
            model=dict(name="simple_cnn", bn_group=None, dropout=0.5),
            data=dict(
                name="sdnet2018",
                dir="SDNET2018",
                image_size=(64, 64),
                channels=3,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                split="grouped",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.15,
                sampling="balanced",
                cache="auto",
                augment=dict(
                    hflip=dict(p=0.5),
                    vflip=dict(p=0.5),
                    transpose=dict(p=0.5),
                ),
            ),
            loss=dict(focal_constant=dict(weight=1.0, alpha=6.0, gamma=2.0)),
            optim=dict(
                name="adam",
                learning_rate=1e-4,
                schedule="constant",
                plateau=dict(
                    factor=0.5,
                    patience=5,
                    min_delta=0.0,
                    cooldown=0,
                    min_learning_rate=0.0,
                ),
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=32,
                epochs=60,
                early_stop=10,
                precision="auto",
                monitor="f1",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

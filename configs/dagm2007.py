"""DAGM 2007: SegDecNet (15,637,213 parameters), a model for each of the ten classes.

Source: https://arxiv.org/abs/2104.06064 with its published settings. Differs:
validation images are taken from the training part, and the threshold is chosen on them.

python scripts/train.py --config configs/dagm2007.py --config.data.dir=DIR \
    --sweep data.class_id=1,2,3,4,5,6,7,8,9,10 --workdir runs/dagm2007

DIR: Class1/Train/NAME.PNG, for defects with Class1/Train/Label/NAME_label.PNG, and so
on.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(
                name="segdec",
                delta=1.0,
                soft_label=True,
                dynamic=True,
                weighted=True,
                weight_power=1.0,
                weight_max=10.0,
                weight_per_component=False,
                dilate=7,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(name="segdecnet", adjust_gradient=True, variant="released"),
            data=dict(
                name="dagm2007",
                dir="data/DAGM2007",
                class_id=1,
                image_size=(512, 512),
                channels=1,
                mean=(0.0,),
                std=(1.0,),
                split="published",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.0,
                sampling="least_used",
                cache="auto",
                augment=dict(),
            ),
            loss=dict(),
            optim=dict(
                name="sgd",
                learning_rate=0.05,
                schedule="constant",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=1,
                epochs=70,
                early_stop=None,
                precision="auto",
                monitor="ap",
                accumulate=1,
                ema_decay=None,
                reduction="sum",
            ),
        )
    )

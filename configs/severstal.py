"""Severstal steel: SegDecNet (15,637,213 parameters), all defects as one class.

Source: https://arxiv.org/abs/2104.06064 with its published settings for 3,000 images
with a defect; for 300, 750 and 1,500 of them it trains 90, 80 and 60 epochs. Differs:
all images of the competition's training set are used, in parts that are dealt here;
--config.data.num_positives=300 leaves so many to train on.

python scripts/train.py --config configs/severstal.py --config.data.dir=DIR \
    --workdir runs/severstal

DIR: train_images/NAME.jpg and train.csv. --config.data.cache=none decodes the images in
every epoch and needs no disk for them.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(
                name="segdec",
                delta=0.1,
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
                name="severstal",
                dir="data/severstal",
                mask_size=(256, 1600),
                image_size=(256, 1600),
                channels=1,
                mean=(0.0,),
                std=(1.0,),
                split="grouped",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.3,
                sampling="least_used",
                cache="auto",
                augment=dict(),
            ),
            loss=dict(),
            optim=dict(
                name="sgd",
                learning_rate=0.1,
                schedule="constant",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=10,
                epochs=40,
                early_stop=None,
                precision="auto",
                monitor="ap",
                accumulate=1,
                ema_decay=None,
                reduction="sum",
            ),
        )
    )

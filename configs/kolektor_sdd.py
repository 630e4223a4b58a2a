"""KolektorSDD: SegDecNet (15,637,213 parameters) on grey photos, three folds.

Source: https://arxiv.org/abs/2104.06064 with its published settings. Differs: the folds
over the items are dealt here, validation items are taken from the training part, and
the threshold is chosen on them.

python scripts/train.py --config configs/kolektor_sdd.py --config.data.dir=DIR \
    --sweep data.fold=0,1,2 --workdir runs/kolektor_sdd

DIR: kos01/Part0.jpg with kos01/Part0_label.bmp, and so on. Without any mask
(--config.data.num_segmented=0) the published runs have optim.learning_rate=0.01,
task.delta=1.0 and task.dynamic=false; task.weighted=false goes with it.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            task=dict(
                name="segdec",
                delta=0.01,
                soft_label=True,
                dynamic=True,
                weighted=True,
                weight_power=2.0,
                weight_max=1.0,
                weight_per_component=False,
                dilate=7,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(name="segdecnet", adjust_gradient=True, variant="released"),
            data=dict(
                name="kolektor_sdd",
                dir="data/KolektorSDD",
                image_size=(1408, 512),
                channels=1,
                mean=(0.0,),
                std=(1.0,),
                split="kfold",
                num_folds=3,
                fold=0,
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
                learning_rate=1.0,
                schedule="constant",
                plateau=None,
                warmup_epochs=0.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=1,
                epochs=50,
                early_stop=None,
                precision="auto",
                monitor="ap",
                accumulate=1,
                ema_decay=None,
                reduction="sum",
            ),
        )
    )

"""KolektorSDD2: SegDecNet (15,638,813 parameters), masks and image labels.

Source: https://arxiv.org/abs/2104.06064 with its published settings; 95.4 % AP there,
with all 246 masks. Differs: validation images are taken from the training part, and the
threshold is chosen on them.

python scripts/train.py --config configs/kolektor_sdd2.py --config.data.dir=DIR \
    --workdir runs/kolektor_sdd2

DIR: train/ID.png with train/ID_GT.png, and test/. Weakly labelled, of the defects some
masks, the rest by image label: --sweep data.num_segmented=16,53,126,none; without any
(num_segmented=0) the published runs have task.dynamic=false; task.weighted=false goes
with it.
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
                weight_power=2.0,
                weight_max=3.0,
                weight_per_component=False,
                dilate=15,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(name="segdecnet", adjust_gradient=True, variant="released"),
            data=dict(
                name="folder_segmentation",
                dir="data/KolektorSDD2",
                image_dir="{split}",
                mask_dir="{split}",
                mask_suffix="_GT",
                foreground="bright",
                classes=("background", "defect"),
                classes_file="",
                group_pattern="",
                image_size=(640, 232),
                channels=3,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
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
                learning_rate=0.01,
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

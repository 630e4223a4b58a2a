"""crack_segmentation: masks at full size and decision in one, U-Net on ResNet-34.

The training of SegDecNet with a network whose encoder can start from published weights:
--config.model.encoder_weights=hf:timm/resnet34.a1_in1k. For comparison, a SegDecNet
with a U-Net-like decoder at 448x448: AP 0.9998, AUC 0.9984, 5 false alarms and 7 misses
of 1,695 test images, Dice 0.68 to 0.71 per image
(https://github.com/khanhha/crack_segmentation has the data). Differs: another encoder,
Adam, flips and turns; the threshold is chosen on validation images.

python scripts/train.py --config configs/crack_segmentation_unet.py \
    --config.data.dir=DIR --workdir runs/crack_segmentation_unet

DIR: as of configs/crack_segmentation.py. With few masks, the other images by label:
--config.data.num_segmented=500.
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
                dilate=1,
                threshold="max_f1",
                min_recall=0.95,
            ),
            model=dict(
                name="encoder_unet",
                encoder="resnet34",
                skips="blocks",
                decoder_widths=(256, 128, 64, 32, 16),
                bn_group=None,
                drop_path=0.0,
                image_head=True,
                adjust_gradient=True,
            ),
            data=dict(
                name="crack_segmentation",
                dir="data/crack_segmentation",
                image_size=(448, 448),
                channels=3,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                split="published",
                split_seed=0,
                val_fraction=0.15,
                test_fraction=0.0,
                sampling="shuffle",
                cache="auto",
                augment=dict(hflip=dict(p=0.5), vflip=dict(p=0.5), rot90=dict(p=1.0)),
            ),
            loss=dict(),
            optim=dict(
                name="adam",
                learning_rate=3e-4,
                schedule="cosine",
                plateau=None,
                warmup_epochs=1.0,
                momentum=0.0,
                weight_decay=0.0,
                clip_norm=None,
            ),
            train=dict(
                batch_size=16,
                epochs=50,
                early_stop=None,
                precision="auto",
                monitor="ap",
                accumulate=1,
                ema_decay=None,
            ),
        )
    )

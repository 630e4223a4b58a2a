"""Names of the arrays that flow through the program, documented once.

Batch: `dict[str, Array]` with a closed vocabulary. Images are NHWC.

| key           | shape, dtype                   | meaning                             |
|---------------|--------------------------------|-------------------------------------|
| `image`       | [N, H, W, C] uint8, then float | pixels; normalised on the device    |
| `mask`        | [N, H, W] uint8, then int32    | class id; `IGNORE` is no class      |
| `label`       | [N] int32                      | image class; 1 = defect present     |
| `valid`       | [N] bool                       | False for padding of a batch        |
| `index`       | [N] int32                      | position in the whole set; of a     |
|               |                                | random window, number in the epoch  |
| `other_label` | [N] int32                      | with mixup, cutmix: of the other    |
| `label_share` | [N] float32                    | with them: weight of `label`        |
| `seg_target`  | [N, h, w] float32 or uint8     | of segdec, see `data.targets`       |
| `seg_weight`  | [N, h, w] float32              | of segdec, see `data.targets`       |
| `progress`    | [N] float32                    | share of the epochs that were done; |
|               |                                | only in training                    |

Outputs: `dict[str, Array]` with one or both of `seg_logits` [N, H, W, K] and
`cls_logits` [N, K], float32, without activation; K = 1 means binary. SegDecNet also
gives `seg_map` [N, H/8, W/8, 1], which `seg_logits` enlarges.

PerExample: `dict[str, Array]`, every array with leading dimension N. Evaluations of two
batches concatenate; nothing is averaged before the whole set has been seen.
"""

import jax

Array = jax.Array
Batch = dict[str, Array]
Outputs = dict[str, Array]
PerExample = dict[str, Array]

IGNORE = 255
"""Mask value of pixels that count neither in a loss nor in a metric."""

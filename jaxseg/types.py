"""Names of the arrays that flow through the program, documented once.

Batch: `dict[str, Array]` with a closed vocabulary. Images are NHWC.

| key           | shape, dtype                   | meaning                             |
|---------------|--------------------------------|-------------------------------------|
| `image`       | [N, H, W, C] uint8, then float | pixels; normalised on the device    |
| `mask`        | [N, H, W] uint8, then int32    | class id; `IGNORE` is no class      |
| `label`       | [N] int32                      | image class; 1 = defect present     |
| `valid`       | [N] bool                       | False for padding of a batch        |
| `index`       | [N] int32                      | position in the whole set           |
| `other_label` | [N] int32                      | with mixup, cutmix: of the other    |
| `label_share` | [N] float32                    | with them: weight of `label`        |

Outputs: `dict[str, Array]` with one or both of `seg_logits` [N, H, W, K] and
`cls_logits` [N, K], float32, without activation; K = 1 means binary.

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

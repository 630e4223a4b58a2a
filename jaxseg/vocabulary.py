"""All that a config may name: tasks, networks, datasets, losses, augmentations.

Apart from what builds them: a config is read and a step compiled without grain.
"""

from jaxseg import augment, parsing
from jaxseg.datasets import DATASETS
from jaxseg.losses import LOSSES
from jaxseg.models import MODELS
from jaxseg.tasks import TASKS

SCHEMAS = parsing.Schemas(TASKS, MODELS, DATASETS, LOSSES, augment.AUGMENTS)

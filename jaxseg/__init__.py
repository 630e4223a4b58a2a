"""Finds cracks, defects, leaf disease, roads and speed lines in images, on JAX."""

__version__ = "0.1.0"


def load(folder, **options):
    """A trained network: `jaxseg.load("runs/x/model").predict(image)`.

    The options and what comes back stand in `jaxseg.predict.predictor.load`. JAX is
    imported here and not with the package.
    """
    from jaxseg.predict import predictor

    return predictor.load(folder, **options)

"""A config that trains in seconds, for the tests of whole runs."""

TINY_CONFIG = """
[model]
width = 4
depth = 2
{model}
[target]
scheme = "{scheme}"

[training]
steps = {steps}
steps_per_epoch = 2
batch_size = 2
crop = 64
validation_images = 1
precision = "32-true"

[prediction]
flips = {flips}
"""

"""A training of seconds, on the prepared images of conftest."""

from nuclei.config import AugmentationConfig, Config, ModelConfig, TrainingConfig
from nuclei.data.splits import Fold
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.training.fabric import Fabric
from nuclei.training.loop import fit

CONFIG = Config(
    name="tiny",
    model=ModelConfig(width=4, depth=2, dropout=0.1),
    augmentation=AugmentationConfig(preset="nuclei"),
    training=TrainingConfig(
        steps=8,
        steps_per_epoch=2,
        batch_size=2,
        crop=64,
        precision="32-true",
        validation_images=1,
        ema_decay=0.5,
    ),
)


def train(images, folder, config=CONFIG, workers=0, compiled=False):
    ids = images.ids("train")
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fit(fabric, config, images, Fold(0, ids[:6], ids[6:]), folder, folder.parent.parent, workers, compiled)
    return load_checkpoint(folder / "model.pt")

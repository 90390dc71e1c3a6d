"""The files that are converted, by name. Nothing is imported here, so that a help text need not wait."""

KINDS = {
    "torchvision": "a ResNet of torchvision",
    "ca_fsis": "a detector of CA_FSIS_Cell",
    "oneshot": "the ResNet of One-Shot-Object-Detection",
    "detectron": "weights of Detectron",
    "detectron_pytorch": "a detector of Detectron.pytorch",
}

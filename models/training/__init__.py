"""Fine-tuning: losses, augmentations, trainable parameters and checkpoints."""

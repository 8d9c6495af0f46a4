"""What fine-tuning adds to a network: losses, augmentations, trainable tensors, checkpoints."""

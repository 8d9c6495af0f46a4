"""Fine-tuning on Ray Train: mining, steps, validation, the report."""

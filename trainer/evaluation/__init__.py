"""From a model and manifests to texts, counts of errors and their rates.

Nothing here chooses a checkpoint by them: that is `trainer.finetune`. Begin with `evaluate.py`;
counts and rates are in `error_rates.py`.
"""

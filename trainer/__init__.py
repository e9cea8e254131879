"""Fine-tuning Fun-ASR-Nano to telephone speech: data, training, scoring, export.

Settings are `conf`, many fine-tunes together are `sweeps`, and `analysis` reads what came of them.
Begin with `finetune/run.py`: one fine-tune, from its data to its record.
"""

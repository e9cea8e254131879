"""The best trial as a configuration and a model directory, with its card and provenance.

Begin with `best_trial.py`; packaging itself is `trainer.export`.
"""

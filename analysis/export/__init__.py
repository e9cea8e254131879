"""The best trial as a configuration and a model directory, with model card and provenance.

Packaging itself is in `trainer.export`. Begin with `best_trial.py`.
"""

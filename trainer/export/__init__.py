"""From a finished run to what others use: model directory, MLflow's model, stock's own training.

Which trial is exported is decided in `analysis.export.best_trial`. Begin with `package.py`.
"""

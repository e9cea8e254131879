"""From a finished run to a model that others load: packaging, MLflow's model, verification.

Which trial is exported is decided in `analysis.export.best_trial`. Begin with `package.py`.
"""

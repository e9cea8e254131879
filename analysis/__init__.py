"""What a sweep showed: typed records from MLflow, comparison tables, export of the best trial.

`python -m analysis --help` lists the commands.
"""

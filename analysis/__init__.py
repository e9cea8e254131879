"""What a sweep showed: typed records from MLflow, tables, report, export of the best trial.

`python -m analysis --help` lists the commands.
"""

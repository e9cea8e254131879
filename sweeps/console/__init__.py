"""What a sweep prints: the live view, the status, and the dry run with its cost forecast.

Tables and reports of the results are made in `analysis`. Begin with `view.py`.
"""

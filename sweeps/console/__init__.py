"""What a person sees of a sweep: live view, status, dry run with its cost.

Begin with `view.py`.
"""

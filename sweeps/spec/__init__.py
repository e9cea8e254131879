"""The sweep file: its schema, the ranges it may give, and the keys that can be searched.

What to try next is decided in `search`, not here. Begin with `sweep_file.py`.
"""

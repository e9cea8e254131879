"""What a sweep file may say: ranges, stages, and which keys can be searched.

Begin with `sweep_file.py`.
"""

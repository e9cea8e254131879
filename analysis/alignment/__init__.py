"""The documents that set our configurations next to the released model's, made from the files.

Their templates are in `conf/templates`. Begin with `align.py`.
"""

"""Documents that compare our configurations with the pretrained model's, made from the files.

Begin with `align.py`.
"""
